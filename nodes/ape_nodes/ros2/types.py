"""ROS 2 message types without ROS: rosbags' type stores, with those of other packages added."""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_nodes.ros2.encoder import Encoder
from ape_stream.errors import ConfigError
from ape_stream.optional import library

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "INTERFACES",
    "added_definitions",
    "blank",
    "plain_encoder",
    "service_definitions",
    "type_store",
]

INTERFACES: Final = "ape_stream_interfaces"
"""The package of our own services, in `interfaces/`."""


@functools.cache
def type_store(distro: str = "jazzy") -> Any:
    """The messages of a ROS 2 release (humble, iron, jazzy, kilted, lyrical) and those we add.

    Raises:
        ConfigError: the release is unknown.
        PluginError: the extra `dds` is not installed.
    """
    typesys = library("rosbags.typesys", "dds")
    try:
        store = typesys.get_typestore(typesys.Stores[f"ROS2_{distro.upper()}"])
    except KeyError as error:
        raise ConfigError(f"ROS 2 release {distro!r} is unknown: humble ... lyrical") from error
    # rosbags ships the messages of ROS itself, but not those of vision_msgs and others.
    for name, text in added_definitions().items():
        if name not in store.types:
            store.register(typesys.get_types_from_msg(text, name))
    return store


def added_definitions() -> dict[str, str]:
    """The text of each definition that rosbags or the wheels of rclpy lack, by type."""
    texts = files("ape_nodes").joinpath("ros2/definitions.msg").read_text()
    # The file holds "=== TYPE" lines, each followed by the definition of that type.
    return dict(re.findall(r"^=== (\S+)\n((?:(?!===).*\n)*)", texts, re.MULTILINE))


def service_definitions() -> dict[str, str]:
    """The text of each of our services, by type."""
    folder = files("ape_nodes").joinpath("ros2/interfaces/srv")
    found = {one.name.removesuffix(".srv"): one.read_text() for one in folder.iterdir()}
    return {f"{INTERFACES}/srv/{name}": text for name, text in found.items()}


def _bytes_field(data: bytes | memoryview) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def blank(store: Any, name: str) -> Any:
    """A message of a type store with every field 0, false or empty."""
    fields = store.fielddefs[name][1]
    return store.types[name](**{field: _blank_field(store, kind) for field, kind in fields})


def _blank_field(store: Any, kind: Any) -> Any:
    # A field is (node, detail): a named type, a base type, or an array or sequence of another.
    node, detail = kind
    if node.name == "NAME":
        return blank(store, detail)
    if node.name == "BASE":
        return {"string": "", "bool": False, "float32": 0.0, "float64": 0.0}.get(detail[0], 0)
    inner, length = detail
    count = length if node.name == "ARRAY" else 0
    if inner[0].name == "BASE" and inner[1][0] != "string":
        return np.zeros(count, {"byte": "uint8", "char": "uint8"}.get(inner[1][0], inner[1][0]))
    return [_blank_field(store, inner) for _ in range(count)]


def plain_encoder(store: Any, mask_encoding: str = "mono16") -> Encoder:
    """An encoder that builds the messages of a type store."""
    make_blank = functools.partial(blank, store)
    return Encoder(store.types.__getitem__, _bytes_field, mask_encoding, make_blank)
