"""One interface to the ROS 2 graph; the backend is `dds` (pip only) or `rclpy` (needs ROS 2)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol

from ape_stream.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_nodes.ros2.encoder import Encoder
    from ape_nodes.ros2.topics import TopicSpec

__all__ = ["Reader", "RosNode", "Writer", "choose", "open_node"]

_NEEDS: Final = {"dds": "cyclonedds", "rclpy": "rclpy"}


class Writer(Protocol):
    """Publishes one topic."""

    def write(self, message: Any) -> None:
        """Send a message of this backend.

        Raises:
            SinkError: the transport refused it.
        """

    @property
    def readers(self) -> int:
        """How many readers are matched now."""


class Reader(Protocol):
    """Receives one topic."""

    def take(self, timeout_s: float) -> Iterator[Any]:
        """What has arrived, oldest first; waits at most `timeout_s` for the first message.

        Raises:
            SourceError: the transport failed.
        """


class RosNode(Protocol):
    """A node on the graph."""

    def encoder(self, mask_encoding: str) -> Encoder:
        """An encoder that builds the messages of this backend."""

    def has_type(self, name: str) -> bool:
        """Whether messages of this type ("std_msgs/msg/Header") can be sent and received."""

    def writer(self, topic: str, spec: TopicSpec) -> Writer:
        """Publish a topic with this type and QoS; `~/x` is the node's own."""

    def reader(self, topic: str, spec: TopicSpec) -> Reader:
        """Subscribe to a topic with this type and QoS."""

    def close(self) -> None:
        """Leave the graph."""


def choose(backend: str) -> str:
    """The backend of this name; `auto` is dds where its extra is installed, else rclpy.

    Raises:
        ConfigError: there is no such backend.
        PluginError: what it needs is not installed.
    """
    if backend not in ("auto", *_NEEDS):
        raise ConfigError(f"backend={backend!r} is none of auto, {', '.join(_NEEDS)}")
    # find_spec imports nothing: what is chosen is imported when the node is opened.
    for name in _NEEDS if backend == "auto" else (backend,):
        if find_spec(_NEEDS[name]) is not None:
            return name
    raise PluginError(
        "ROS 2 topics need a backend: pip install 'ape-stream[dds]', or source a ROS 2"
        " installation (backend rclpy)"
    )


def open_node(
    backend: str, name: str, namespace: str, domain_id: int | None, distro: str
) -> RosNode:
    """Join the graph.

    Args:
        backend: "dds" or "rclpy", as `choose` says.
        name: Node name.
        namespace: `/` or `/robot`.
        domain_id: ROS_DOMAIN_ID; None reads the environment.
        distro: Whose message definitions are used (dds only; rclpy has its own).
    """
    if backend == "dds":
        from ape_nodes.ros2.dds.backend import DdsNode  # noqa: PLC0415 (only one of the two is installed)

        return DdsNode(name, namespace, domain_id, distro)
    from ape_nodes.ros2.rclpy_node.backend import RclpyNode  # noqa: PLC0415 (as above)

    return RclpyNode(name, namespace, domain_id)
