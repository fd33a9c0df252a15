"""The output topics of a node: made while it is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos_overriding_options import QoSOverridingOptions

from ape_nodes.ros2.rclpy_node.backend import has_message, message_class, rclpy_qos
from ape_nodes.ros2.space.results import SPACE_TOPICS
from ape_nodes.ros2.topics import OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_nodes.ros2.topics import TopicSpec

__all__ = ["Outputs"]


class Outputs:
    """Publishers by the name of their output.

    Args:
        node: A node with the parameters of `ape_nodes.ros2.parameters`.
        on_matched: Called when a reader comes or goes.
    """

    def __init__(self, node: Any, on_matched: Callable[[], None]) -> None:
        self._node = node
        self._on_matched = on_matched
        self._publishers: dict[str, Any] = {}

    def open(self) -> None:
        """Make the publishers of all outputs that exist here."""
        for spec in filter(self._is_made, OUTPUTS):
            self._publishers[spec.name] = self._node.create_publisher(
                message_class(spec.type),
                f"~/{spec.name}",
                rclpy_qos(spec),
                event_callbacks=PublisherEventCallbacks(matched=lambda _: self._on_matched()),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )

    def _is_made(self, spec: TopicSpec) -> bool:
        """Whether an output exists with these parameters and the packages that are installed."""
        value = self._node.get_parameter
        if spec.name.endswith("/compressed") and not value("publish_compressed").value:
            return False
        if spec.name in SPACE_TOPICS and value("depth").value == "none":
            return False
        if not has_message(spec.type):
            lacking = f"~/{spec.name} is left out: {spec.type} is not installed"
            self._node.get_logger().info(lacking)
            return False
        return True

    @property
    def names(self) -> list[str]:
        """The outputs that exist, relative to the node."""
        return list(self._publishers)

    @property
    def is_read(self) -> bool:
        """Whether any output has a reader; none has once the context is shut down."""
        try:
            return any(one.get_subscription_count() for one in list(self._publishers.values()))
        except RuntimeError:  # of rcl: another thread has shut the context down
            if self._node.context.ok():
                raise
            return False

    def has_readers(self, name: str) -> bool:
        """Whether anybody is subscribed to this output."""
        publisher = self._publishers.get(name)
        return publisher is not None and publisher.get_subscription_count() > 0

    def publish(self, name: str, message: Any) -> None:
        """Publish on this output."""
        self._publishers[name].publish(message)

    def close(self) -> None:
        """End all publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers.clear()
