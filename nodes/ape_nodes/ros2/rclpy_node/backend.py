"""Topics through rclpy, for the node and for the `ros2` source and sink in a ROS installation."""

from __future__ import annotations

import importlib
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from ape_nodes.ros2.messages import Encoder, as_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_nodes.ros2.topics import TopicSpec

__all__ = ["RclpyNode", "RclpyReader", "RclpyWriter", "message_class", "rclpy_encoder", "rclpy_qos"]


def message_class(name: str) -> type:
    """The class of a ROS 2 type: "std_msgs/msg/Header"."""
    package, kind, short = name.split("/")
    found: type = getattr(importlib.import_module(f"{package}.{kind}"), short)
    return found


def rclpy_encoder(mask_encoding: str = "mono16") -> Encoder:
    """An encoder that builds rclpy's messages."""
    return Encoder(message_class, as_array, mask_encoding)


def rclpy_qos(
    spec: TopicSpec, *, reliable: bool | None = None, latched: bool | None = None
) -> QoSProfile:
    """The QoS of a topic, with another reliability or durability where one is given."""
    firm = spec.reliable if reliable is None else reliable
    kept = spec.latched if latched is None else latched
    return QoSProfile(
        depth=spec.depth,
        reliability=ReliabilityPolicy.RELIABLE if firm else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if kept else DurabilityPolicy.VOLATILE,
    )


class RclpyWriter:
    """Publishes one topic."""

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher

    def write(self, message: Any) -> None:
        """Send a message."""
        self._publisher.publish(message)

    @property
    def readers(self) -> int:
        """How many readers are matched now."""
        return int(self._publisher.get_subscription_count())


class RclpyReader:
    """Receives one topic; the node works only while somebody takes."""

    def __init__(self, executor: Any, depth: int) -> None:
        self._executor = executor
        self._arrived: deque[Any] = deque(maxlen=depth)

    def keep(self, message: Any) -> None:
        """Keep a message until it is taken; a full reader forgets its oldest."""
        self._arrived.append(message)

    def take(self, timeout_s: float) -> Iterator[Any]:
        """What has come, oldest first; waits at most `timeout_s` for the first message."""
        with suppress(ExternalShutdownException):  # closed meanwhile: then nothing comes
            self._executor.spin_once(timeout_sec=timeout_s)
        while self._arrived:
            yield self._arrived.popleft()


class RclpyNode:
    """A plain node with a context of its own, so that signals stay with the program.

    Args:
        name: Node name.
        namespace: `/` or `/robot`.
        domain_id: ROS_DOMAIN_ID; None reads the environment.
    """

    def __init__(self, name: str, namespace: str = "/", domain_id: int | None = None) -> None:
        self._context = Context()
        # No arguments: those of `ape-stream` are not meant for ROS.
        rclpy.init(args=[], context=self._context, domain_id=domain_id)
        self._node = Node(
            name,
            context=self._context,
            namespace=namespace,
            enable_rosout=False,
            start_parameter_services=False,  # it has none, and would answer only while it spins
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def encoder(self, mask_encoding: str) -> Encoder:
        """An encoder that builds rclpy's messages."""
        return rclpy_encoder(mask_encoding)

    def writer(self, topic: str, spec: TopicSpec) -> RclpyWriter:
        """Publish a topic with this type and QoS."""
        kind = message_class(spec.type)
        return RclpyWriter(self._node.create_publisher(kind, topic, rclpy_qos(spec)))

    def reader(self, topic: str, spec: TopicSpec) -> RclpyReader:
        """Subscribe to a topic with this type and QoS."""
        made = RclpyReader(self._executor, spec.depth)
        kind = message_class(spec.type)
        self._node.create_subscription(kind, topic, made.keep, rclpy_qos(spec))
        return made

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)
