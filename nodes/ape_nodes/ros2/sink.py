"""Results out as ROS 2 topics: `ros2:/ape`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Self

from ape_nodes.ros2.backend import choose, open_node
from ape_nodes.ros2.diagnostics import Health, run_values
from ape_nodes.ros2.publisher import ResultPublisher
from ape_nodes.ros2.space.results import Placement
from ape_nodes.ros2.space.tf_reader import TransformReader
from ape_nodes.ros2.topics import DIAGNOSTICS, LABEL_SOURCES, OUTPUTS, ros_name
from ape_stream.closing import Closing
from ape_stream.errors import ConfigError, SinkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_nodes.ros2.backend import RosNode, Writer
    from ape_nodes.ros2.topics import LabelSource
    from ape_stream.depth.box import BoxKind
    from ape_stream.stats import RunStats
    from ape_stream.types import FrameResult, MapKind

__all__ = ["Ros2Sink"]

_DIAGNOSE_EVERY_S: Final = 1.0


class _NodeTopics:
    """The output topics of a node, or of one stream of it."""

    def __init__(self, node: RosNode, prefix: str) -> None:
        # Messages that a ROS installation lacks have no topic.
        self._writers: dict[str, Writer] = {
            spec.name: node.writer(f"~/{prefix}{spec.name}", spec)
            for spec in OUTPUTS
            if node.has_type(spec.type)
        }

    def has_readers(self, name: str) -> bool:
        return name in self._writers and self._writers[name].readers > 0

    def publish(self, name: str, message: Any) -> None:
        self._writers[name].write(message)


class Ros2Sink(Closing):
    """Publishes results as the topics of a ROS 2 node, with or without a ROS installation.

    Args:
        spec: `ros2:/ape` or `ros2:/robot/ape`: the node's full name.
        mask_encoding: "mono16", or "mono8" where all values fit.
        label_source: What `label_image` is made from: "instances", masks painted, or "semantic",
            the semantic map, which is made while the topic has readers.
        per_stream: True puts each stream under its own name: `~/<stream>/detections`.
        boxes: Kind of boxes of results in space: "oriented" or "axis_aligned".
        voxel_m: Side of the cubes of which `points` has one, metres; 0 sends all.
        target_frame: Coordinate frame of results in space, by `/tf`; empty: the image's.
        domain_id: ROS_DOMAIN_ID; None reads the environment.
        distro: Whose message definitions are used (humble ... lyrical; dds only).
        backend: "dds", "rclpy", or "auto": dds where its extra is installed, else rclpy.

    Raises:
        ConfigError: the name or an option cannot be used.
        PluginError: what the backend needs is not installed.
    """

    def __init__(  # noqa: PLR0913 (a plugin's options are its keyword arguments)
        self,
        spec: str,
        *,
        mask_encoding: str = "mono16",
        label_source: LabelSource = "instances",
        per_stream: bool = False,
        boxes: BoxKind = "oriented",
        voxel_m: float = 0.0,
        target_frame: str = "",
        domain_id: int | None = None,
        distro: str = "jazzy",
        backend: str = "auto",
    ) -> None:
        path = spec.removeprefix("ros2:").strip("/") or "ape"
        if not all(part.isidentifier() for part in path.split("/")):
            raise ConfigError(f"{spec!r}: a node's name is like /robot/ape, letters and digits")
        # "robot/ape" is the node `ape` in the namespace `/robot`.
        namespace, _, self._node_name = path.rpartition("/")
        self.name = spec
        self._namespace = f"/{namespace}"
        self._mask_encoding = mask_encoding
        if label_source not in LABEL_SOURCES:
            raise ConfigError(f"label_source={label_source!r} is none of {list(LABEL_SOURCES)}")
        self._label_source: LabelSource = label_source
        self._per_stream = per_stream
        self._placement = Placement(boxes=boxes, voxel_m=voxel_m, target_frame=target_frame)
        self._transforms: TransformReader | None = None
        self._domain_id = domain_id
        self._distro = distro
        self._backend = choose(backend)
        self._opened: RosNode | None = None
        self._publishers: dict[str, ResultPublisher] = {}
        self._diagnostics: Writer | None = None
        self._stats: Callable[[], RunStats] | None = None
        self._diagnosed_s = time.monotonic()

    def watch(self, stats: Callable[[], RunStats]) -> None:
        """Take a callable that returns the run's statistics, for `/diagnostics`."""
        self._stats = stats

    def __enter__(self) -> Self:
        """Join the graph."""
        self._opened = open_node(
            self._backend, self._node_name, self._namespace, self._domain_id, self._distro
        )
        self._diagnostics = self._opened.writer(DIAGNOSTICS.name, DIAGNOSTICS)
        if self._placement.target_frame:
            self._transforms = TransformReader(self._opened, self._placement.transforms)
        if not self._per_stream:
            self._publisher("")  # the topics exist before the first frame
        return self

    def close(self, _error: BaseException | None = None, /) -> None:
        """Leave the graph."""
        if self._opened is not None:
            self._publishers.clear()
            self._diagnostics = self._transforms = None
            self._opened.close()
            self._opened = None

    @property
    def _node(self) -> RosNode:
        if self._opened is None:
            raise SinkError(f"{self.name} is not open: use it in a with statement")
        return self._opened

    def _publisher(self, stream: str) -> ResultPublisher:
        if stream not in self._publishers:
            prefix = f"{ros_name(stream)}/" if self._per_stream else ""
            # A publisher for each, as it remembers whose names were sent.
            encoder = self._node.encoder(self._mask_encoding)
            topics = _NodeTopics(self._node, prefix)
            self._publishers[stream] = ResultPublisher(
                encoder, topics, self._placement, self._label_source
            )
        return self._publishers[stream]

    @property
    def maps(self) -> frozenset[MapKind]:
        """What the readers of `label_image` need; see `NeedsMaps`."""
        wanted: frozenset[MapKind] = frozenset()
        return wanted.union(*(publisher.maps for publisher in [*self._publishers.values()]))

    def write(self, result: FrameResult) -> None:
        """Publish a result.

        Raises:
            SinkError: the transport refused it.
        """
        if self._transforms is not None:
            self._transforms.poll()
        self._publisher(result.frame.stream if self._per_stream else "").write(result)
        if time.monotonic() - self._diagnosed_s >= _DIAGNOSE_EVERY_S:
            self._diagnosed_s = time.monotonic()
            self._diagnose(result)

    def _diagnose(self, result: FrameResult) -> None:
        """Publish the status. Without results there is none, and monitors call the node stale."""
        if self._diagnostics is None:
            return
        values = {"prompts": ", ".join(result.prompts.texts)}
        if self._stats is not None:
            values |= run_values(self._stats())
        name = f"{self._namespace.rstrip('/')}/{self._node_name}"
        encoder = self._node.encoder(self._mask_encoding)
        problem = self._placement.problem
        health = Health("WARN", problem) if problem else Health("OK", "active")
        self._diagnostics.write(encoder.diagnostics(time.time_ns(), name, health, values))
