"""Message classes as strict as rosidl's for Python: a wrong field, type or range raises.

They are made from the definitions in rosbags' type store, so their fields are the real ones.
"""

import array
import copy
import functools
import types

import numpy as np
from rosbags.typesys import get_types_from_msg

from ape_nodes.ros2.types import service_definitions, type_store

RANGES = {
    "uint8": (0, 2**8), "int8": (-(2**7), 2**7), "uint16": (0, 2**16), "int16": (-(2**15), 2**15),
    "uint32": (0, 2**32), "int32": (-(2**31), 2**31), "uint64": (0, 2**64),
    "int64": (-(2**63), 2**63), "char": (0, 2**8),
}  # fmt: skip
CODES = {"uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "uint32": "I", "int32": "i",
         "uint64": "Q", "int64": "q", "float32": "f", "float64": "d"}  # fmt: skip


HALVES = ("Request", "Response")


@functools.cache
def store_with_services():
    """A copy of the type store in which our services are two messages each."""
    store = copy.deepcopy(type_store())
    for name, text in service_definitions().items():
        for half, fields in zip(HALVES, text.split("---\n"), strict=True):
            store.register(get_types_from_msg(fields, half_of(name, half)))
    return store


def half_of(service, half):
    return f"{service.replace('/srv/', '/msg/')}_{half}"


class Catalogue:
    """Every message class, made when first asked for."""

    def __init__(self):
        self.store = store_with_services()
        self._made = {}

    def get(self, name):
        if name not in self._made:
            constants, fields = self.store.fielddefs[name]
            members = {"_fields": dict(fields), "_catalogue": self, "__slots__": ("_values",)}
            members |= {c: bytes([v]) if kind == "byte" else v for c, kind, v in constants}
            members |= {field: _accessor(field) for field, _ in fields}
            self._made[name] = type(name.rsplit("/", 1)[1], (Message,), members)
        return self._made[name]

    def default(self, kind):
        node, detail = kind
        match node.name:
            case "NAME":
                return self.get(detail)()
            case "ARRAY":
                return np.zeros(detail[1])
            case "SEQUENCE":
                code = CODES.get(detail[0][1][0]) if detail[0][0].name == "BASE" else None
                return array.array(code) if code else []
        return {"string": "", "bool": False, "byte": b"\0", "float32": 0.0, "float64": 0.0}.get(
            detail[0], 0
        )

    def check(self, field, kind, value):
        node, detail = kind
        match node.name:
            case "NAME":
                assert isinstance(value, self.get(detail)), f"{field} must be a {detail}"
            case "ARRAY":
                assert isinstance(value, np.ndarray), f"{field} must be an array"
                assert value.size == detail[1], f"{field} must have {detail[1]} values"
            case "SEQUENCE":
                self.check_sequence(field, *detail, value)
            case _:
                check_plain(field, detail[0], value)

    def check_sequence(self, field, inner, limit, value):
        assert not limit or len(value) <= limit, f"{field} holds at most {limit}"
        code = CODES.get(inner[1][0]) if inner[0].name == "BASE" else None
        if code == "B":  # rosidl takes other sequences as well, at a second an image
            assert isinstance(value, array.array), f"{field} must be array.array('B')"
        if isinstance(value, array.array):
            assert value.typecode == code, f"{field} must be array.array({code!r})"
            return
        assert isinstance(value, (list, tuple)), f"{field} must be a list"
        for one in value:
            self.check(field, inner, one)


def check_plain(field, kind, value):
    match kind:
        case "string":
            assert isinstance(value, str), f"{field} must be a str"
        case "bool":
            assert isinstance(value, bool), f"{field} must be a bool"
        case "byte":
            assert isinstance(value, bytes), f"{field} must be bytes"
            assert len(value) == 1, f"{field} must be one byte"
        case "float32" | "float64":
            assert isinstance(value, float), f"{field} must be a float, not {value!r}"
        case _:
            low, high = RANGES[kind]
            assert isinstance(value, int), f"{field} must be an int, not {value!r}"
            assert low <= value < high, f"{field} must be a {kind}, not {value}"


def _accessor(field):
    def read(self):
        return self._values[field]

    def write(self, value):
        self._catalogue.check(field, self._fields[field], value)
        self._values[field] = value

    return property(read, write)


class Message:
    """Keyword arguments only, and only those that there are; every value is checked."""

    __slots__ = ("_values",)
    _fields = {}  # noqa: RUF012
    _catalogue = None

    def __init__(self, **values):
        assert set(values) <= set(self._fields), f"no such field: {set(values) - set(self._fields)}"
        self._values = {f: self._catalogue.default(kind) for f, kind in self._fields.items()}
        for field, value in values.items():
            setattr(self, field, value)


class SetBool:
    """std_srvs/srv/SetBool (rosbags knows no services)."""

    class Request:
        def __init__(self, *, data=False):
            check_plain("data", "bool", data)
            self.data = data

    class Response:
        __slots__ = ("_message", "_success")

        def __init__(self):
            self._success, self._message = False, ""

        @property
        def success(self):
            return self._success

        @success.setter
        def success(self, value):
            check_plain("success", "bool", value)
            self._success = value

        @property
        def message(self):
            return self._message

        @message.setter
        def message(self, value):
            check_plain("message", "string", value)
            self._message = value


def modules():
    """`<package>.msg` modules whose attributes are the classes, by module name."""
    catalogue, made = Catalogue(), {}
    for name in catalogue.store.fielddefs:
        package, kind, short = name.split("/")
        if kind != "msg":
            continue
        top = made.setdefault(package, types.ModuleType(package))
        if f"{package}.msg" not in made:
            made[f"{package}.msg"] = top.msg = LazyModule(f"{package}.msg", catalogue)
        made[f"{package}.msg"].shorts.add(short)
    for name in service_definitions():
        package, _, short = name.split("/")
        halves = {half: catalogue.get(half_of(name, half)) for half in HALVES}
        made.setdefault(package, types.ModuleType(package))
        made[f"{package}.srv"] = made[package].srv = types.ModuleType(f"{package}.srv")
        setattr(made[f"{package}.srv"], short, type(short, (), halves))
    made["std_srvs"] = types.ModuleType("std_srvs")
    made["std_srvs.srv"] = made["std_srvs"].srv = types.ModuleType("std_srvs.srv")
    made["std_srvs.srv"].SetBool = SetBool
    return made


class LazyModule(types.ModuleType):
    def __init__(self, name, catalogue):
        super().__init__(name)
        self.shorts, self._catalogue = set(), catalogue

    def __getattr__(self, short):
        if short not in self.shorts:
            raise AttributeError(f"{self.__name__} has no {short}")
        return self._catalogue.get(f"{self.__name__.removesuffix('.msg')}/msg/{short}")
