"""Topics through rclpy, for the node and for the `ros2` source and sink."""

from __future__ import annotations

import importlib
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import rclpy
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from ape_nodes.ros2.encoder import Encoder, byte_array
from ape_nodes.ros2.rclpy_node.shared_memory import enlarge_shared_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ape_nodes.ros2.parameters import ParameterSpec
    from ape_nodes.ros2.topics import TopicSpec

__all__ = [
    "RclpyNode",
    "RclpyReader",
    "RclpyWriter",
    "guard_transition",
    "has_message",
    "message_class",
    "rclpy_descriptor",
    "rclpy_encoder",
    "rclpy_qos",
    "spin_once",
]

_log: Final = logging.getLogger("ape_stream")


def spin_once(executor: Any, timeout_s: float | None = None) -> None:
    """Run what is ready in an executor while other threads end subscriptions or the context.

    Where either ends while rclpy (7.1, Jazzy) collects what to wait for, it raises `InvalidHandle`
    or `RCLError`, of which an executor dies. Nothing is lost: the next call collects again.

    Args:
        executor: One of rclpy's.
        timeout_s: Longest wait, seconds; None waits until something is ready.
    """
    try:
        executor.spin_once(timeout_sec=timeout_s)
    except RuntimeError as error:  # of which `RCLError`, which rclpy does not export, is one
        if not isinstance(error, InvalidHandle) and executor.context.ok():
            raise
        _log.info("a turn of the executor was given up: %s", error)


def message_class(name: str) -> type:
    """The class of a ROS 2 type: "std_msgs/msg/Header"."""
    # "std_msgs/msg/Header" is the class Header of the module std_msgs.msg.
    package, kind, short = name.split("/")
    found: type = getattr(importlib.import_module(f"{package}.{kind}"), short)
    return found


def has_message(name: str) -> bool:
    """Whether the package of a ROS 2 type is installed."""
    try:
        message_class(name)
    except (ImportError, AttributeError):
        return False
    return True


def rclpy_encoder(mask_encoding: str = "mono16") -> Encoder:
    """An encoder that builds rclpy's messages."""
    return Encoder(message_class, byte_array, mask_encoding)


def rclpy_qos(
    spec: TopicSpec, *, reliable: bool | None = None, latched: bool | None = None
) -> QoSProfile:
    """The QoS of a topic, with another reliability or durability where one is given."""
    reliable = spec.reliable if reliable is None else reliable
    latched = spec.latched if latched is None else latched
    return QoSProfile(
        depth=spec.depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def rclpy_descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    """The descriptor of a parameter: rclpy itself keeps to its limits."""
    made = ParameterDescriptor(description=spec.description, read_only=spec.read_only)
    if spec.choices is not None:
        made.additional_constraints = f"one of {', '.join(spec.choices)}"
    if spec.limits is not None:
        low, high = spec.limits
        made.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    return made


def guard_transition(change: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Refuse a transition that the state does not have: Jazzy's rclpy dies (ros2/rclpy#1209)."""

    def answer(request: Any, response: Any) -> Any:
        try:
            return change(request, response)
        except RuntimeError:  # rclpy's RCLError; rcl has logged it
            response.success = False
            return response

    return answer


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
    """Receives one topic; the node spins only inside `take`."""

    def __init__(self, executor: Any, depth: int) -> None:
        self._executor = executor
        self._arrived: deque[Any] = deque(maxlen=depth)

    def keep(self, message: Any) -> None:
        """Keep a message until it is taken; a full queue drops its oldest."""
        self._arrived.append(message)

    def take(self, timeout_s: float) -> Iterator[Any]:
        """What has arrived, oldest first; waits at most `timeout_s` for the first message."""
        with suppress(ExternalShutdownException):  # closed meanwhile: then nothing arrives
            self._executor.spin_once(timeout_sec=timeout_s)
        while self._arrived:
            yield self._arrived.popleft()


class RclpyNode:
    """A plain node with a context of its own, so that rclpy leaves the program's signals alone.

    Args:
        name: Node name.
        namespace: `/` or `/robot`.
        domain_id: ROS_DOMAIN_ID; None reads the environment.
    """

    def __init__(self, name: str, namespace: str = "/", domain_id: int | None = None) -> None:
        enlarge_shared_memory()
        self._context = Context()  # the default context may belong to the user's own nodes
        # No arguments: those of `ape-stream` are not meant for ROS.
        rclpy.init(args=[], context=self._context, domain_id=domain_id)
        self._node = Node(
            name,
            context=self._context,
            namespace=namespace,
            enable_rosout=False,
            start_parameter_services=False,  # it would answer only while it spins
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def encoder(self, mask_encoding: str) -> Encoder:
        """An encoder that builds rclpy's messages."""
        return rclpy_encoder(mask_encoding)

    def has_type(self, name: str) -> bool:
        """Whether the package of this type is installed."""
        return has_message(name)

    def writer(self, topic: str, spec: TopicSpec) -> RclpyWriter:
        """Publish a topic with this type and QoS."""
        kind = message_class(spec.type)
        return RclpyWriter(self._node.create_publisher(kind, topic, rclpy_qos(spec)))

    def reader(self, topic: str, spec: TopicSpec) -> RclpyReader:
        """Subscribe to a topic with this type and QoS."""
        made = RclpyReader(self._executor, spec.depth)
        # rclpy asks for the signature of a callback, so it is a method of ours, not deque.append.
        kind = message_class(spec.type)
        self._node.create_subscription(kind, topic, made.keep, rclpy_qos(spec))
        return made

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)
