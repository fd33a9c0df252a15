"""ROS 2 message types without ROS: rosbags' type stores, with vision_msgs added."""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_nodes.ros2.encoder import Encoder
from ape_stream.errors import ConfigError
from ape_stream.optional import library

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["plain_encoder", "type_store", "vision_definitions"]


@functools.cache
def type_store(distro: str = "jazzy") -> Any:
    """The messages of a ROS 2 release (humble, iron, jazzy, kilted, lyrical) and vision_msgs.

    Raises:
        ConfigError: the release is unknown.
        PluginError: the extra `dds` is not installed.
    """
    typesys = library("rosbags.typesys", "dds")
    try:
        store = typesys.get_typestore(typesys.Stores[f"ROS2_{distro.upper()}"])
    except KeyError as error:
        raise ConfigError(f"ROS 2 release {distro!r} is unknown: humble ... lyrical") from error
    # rosbags ships the messages of ROS itself, but not vision_msgs.
    for name, text in vision_definitions().items():
        store.register(typesys.get_types_from_msg(text, name))
    return store


def vision_definitions() -> dict[str, str]:
    """The text of each vision_msgs definition that is used here, by type."""
    texts = files("ape_nodes").joinpath("ros2/vision_msgs.msg").read_text()
    # The file holds "=== TYPE" lines, each followed by the definition of that type.
    return dict(re.findall(r"^=== (\S+)\n((?:(?!===).*\n)*)", texts, re.MULTILINE))


def _bytes_field(data: bytes | memoryview) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def plain_encoder(store: Any, mask_encoding: str = "mono16") -> Encoder:
    """An encoder that builds the messages of a type store."""
    return Encoder(store.types.__getitem__, _bytes_field, mask_encoding)
