"""The graph of the fake rclpy: one process, its context, its publishers and subscriptions.

Only those match whose types and QoS do, by the rules of DDS.
"""

import collections
import contextlib
import enum
import threading

import yaml

KINDS = ("HISTORY", "DEPTH", "RELIABILITY", "DURABILITY")


class RCLError(RuntimeError):
    pass


class InvalidHandle(RuntimeError):  # noqa: N818
    pass


class ExternalShutdownException(Exception):  # noqa: N818 (its real name)
    pass


class ParameterNotDeclaredException(Exception):  # noqa: N818
    pass


class ParameterAlreadyDeclaredException(Exception):  # noqa: N818
    pass


class ParameterUninitializedException(Exception):  # noqa: N818
    pass


class InvalidParameterTypeException(Exception):  # noqa: N818
    pass


class InvalidParameterValueException(Exception):  # noqa: N818
    pass


ReliabilityPolicy = enum.IntEnum(
    "ReliabilityPolicy", "SYSTEM_DEFAULT RELIABLE BEST_EFFORT", start=0
)
DurabilityPolicy = enum.IntEnum(
    "DurabilityPolicy", "SYSTEM_DEFAULT TRANSIENT_LOCAL VOLATILE", start=0
)
HistoryPolicy = enum.IntEnum("HistoryPolicy", "SYSTEM_DEFAULT KEEP_LAST KEEP_ALL", start=0)
QoSPolicyKind = enum.IntEnum("QoSPolicyKind", KINDS)


class QoSProfile:
    def __init__(self, **values):
        assert set(values) <= {"history", "depth", "reliability", "durability"}, values
        assert "history" in values or "depth" in values, "history or depth is required"
        self.history = values.get("history", HistoryPolicy.KEEP_LAST)
        self.depth = values["depth"]
        self.reliability = values.get("reliability", ReliabilityPolicy.RELIABLE)
        self.durability = values.get("durability", DurabilityPolicy.VOLATILE)
        assert isinstance(self.depth, int)
        assert isinstance(self.reliability, ReliabilityPolicy)
        assert isinstance(self.durability, DurabilityPolicy)


class QoSOverridingOptions:
    def __init__(self, policy_kinds, *, callback=None, entity_id=None):
        self.policy_kinds, self.callback, self.entity_id = policy_kinds, callback, entity_id

    @classmethod
    def with_default_policies(cls, *, callback=None, entity_id=None):
        kinds = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
        return cls(kinds, callback=callback, entity_id=entity_id)


class CallbackGroup:
    def __init__(self):
        self.lock = threading.Lock()

    def can_execute(self, entity):
        return True


class Handle(contextlib.nullcontext):
    """That of a context, a guard condition or a subscription."""

    @property
    def pointer(self):
        return id(self)


class GuardCondition:
    def __init__(self, callback, callback_group, context=None):
        assert isinstance(context, Context)
        self.handle = Handle()
        self.handle.triggered = False

    def trigger(self):
        self.handle.triggered = True

    def destroy(self):
        assert self.handle.triggered, "destroyed while it is waited for"


class Context:
    def __init__(self):
        self.alive, self.arguments, self.handle = False, [], Handle()

    def ok(self):
        return self.alive


WORLD = Context()  # the default one
GRAPH = []  # the endpoints of all contexts


def init(*, args=None, context=None, domain_id=None, signal_handler_options=None):
    context = context or WORLD
    assert isinstance(context, Context)
    assert domain_id is None or isinstance(domain_id, int)
    if context.alive:
        raise RuntimeError("Context.init() must only be called once")
    assert args is None or all(isinstance(one, str) for one in args)
    context.alive, context.arguments = True, list(args or [])


def try_shutdown(*, context=None, uninstall_handlers=None):
    (context or WORLD).alive = False


def ok(*, context=None):
    return (context or WORLD).alive


def read_arguments(arguments):
    """Remappings, parameters and files between `--ros-args` and `--`."""
    remaps, values, inside, given = {}, {}, False, iter(arguments)
    for one in given:
        if one in ("--ros-args", "--"):
            inside = one == "--ros-args"
        elif inside and one in ("-r", "--remap"):
            old, _, new = next(given).partition(":=")
            assert new, f"{old!r} is remapped to nothing"
            remaps[old] = new
        elif inside and one == "-p":
            name, _, value = next(given).partition(":=")
            values[name] = yaml.safe_load(value)
        elif inside and one == "--params-file":
            values |= read_file(next(given))
        elif inside and one == "--log-level":
            next(given)
        else:
            raise RCLError(f"unknown ROS argument {one!r}")
    return remaps, values


def read_file(path):
    with open(path) as file:  # noqa: PTH123
        document = yaml.safe_load(file)
    assert set(document) == {"/**"}, "this fake knows the wildcard only"
    return document["/**"]["ros__parameters"]


class Endpoint:
    def __init__(self, node, kind, topic, qos, callback=None, group=None):
        self.node, self.kind, self.topic, self.qos = node, kind, topic, qos
        self.callback, self.group, self.alive = callback, group, True
        self.waiting = collections.deque(maxlen=qos.depth)
        GRAPH.append(self)

    def check(self):
        if not (self.alive and self.node.context.alive):
            raise InvalidHandle(f"{self.topic} was destroyed, or the context is invalid")

    def matches(self):
        """The endpoints at the other side whose type and QoS fit."""
        self.check()
        found = []
        for other in GRAPH:
            if type(other) is type(self) or other.topic != self.topic or not other.alive:
                continue
            assert other.kind is self.kind, f"two types on {self.topic}"
            out, into = (self, other) if isinstance(self, Publisher) else (other, self)
            if into.qos.reliability < out.qos.reliability:  # RELIABLE is asked, not offered
                continue
            if into.qos.durability < out.qos.durability:
                continue
            found.append(other)
        return found


class Publisher(Endpoint):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.kept = collections.deque(maxlen=self.qos.depth)
        self.sent = self.matched = 0  # `matched`: readers at the last matched event

    def publish(self, message):
        self.check()
        assert isinstance(message, self.kind), f"{message!r} is no {self.kind.__name__}"
        self.sent += 1
        self.kept.append(message)
        for reader in self.matches():
            reader.waiting.append(message)

    def get_subscription_count(self):
        return len(self.matches())


class Subscription(Endpoint):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.events, self.publishers, self.refused, self.lost = None, 0, 0, 0
        self.handle, self.event_handlers, self.raw = Handle(), [], False
        self.handle.reader, self.handle.take_message = self, self._take
        if self.qos.durability is DurabilityPolicy.TRANSIENT_LOCAL:
            for writer in self.matches():
                self.waiting.extend(writer.kept)

    @property
    def msg_type(self):
        return self.kind

    @property
    def topic_name(self):
        return self.topic

    def _take(self, kind, raw):
        assert (kind, raw) == (self.kind, False)
        return (self.waiting.popleft(), {}) if self.alive and self.waiting else None

    def unmatched(self):
        """The policies that keep publishers of this topic away."""
        mine = self.matches()
        return [
            "RELIABILITY" if self.qos.reliability < other.qos.reliability else "DURABILITY"
            for other in GRAPH
            if isinstance(other, Publisher) and other.topic == self.topic and other not in mine
        ]
