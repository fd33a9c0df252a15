"""`/tf` and `/tf_static` from a backend, polled: a sink or source has no thread for callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ape_nodes.ros2.topics import INPUTS
from ape_stream.errors import ConfigError

if TYPE_CHECKING:
    from ape_nodes.ros2.backend import RosNode
    from ape_nodes.ros2.space.tf import TransformTree

__all__ = ["TransformReader"]

_SPECS: Final = {spec.name: spec for spec in INPUTS}


class TransformReader:
    """Subscribes to the transforms of a graph.

    Args:
        node: An open node.
        tree: Takes the transforms.

    Raises:
        ConfigError: the ROS installation has no tf2_msgs.
    """

    def __init__(self, node: RosNode, tree: TransformTree) -> None:
        if not node.has_type("tf2_msgs/msg/TFMessage"):
            raise ConfigError("tf needs the package tf2_msgs, which is not installed")
        self._tree = tree
        self._readers = [
            (node.reader(name, _SPECS[name]), name == "/tf_static")
            for name in ("/tf", "/tf_static")
        ]
        tree.refill = self.poll

    def poll(self) -> None:
        """Take what has arrived."""
        for reader, static in self._readers:
            for message in reader.take(0.0):
                self._tree.add(message, static=static)
