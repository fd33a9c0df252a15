"""Depth for the `ros2` source: its topics, polled, and paired with the images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ape_nodes.ros2.space.depth import DepthPairs, DepthReader, stamp_ns_of
from ape_nodes.ros2.space.tf import TransformTree
from ape_nodes.ros2.space.tf_reader import TransformReader
from ape_nodes.ros2.topics import TopicSpec
from ape_stream.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_nodes.ros2.backend import Reader, RosNode
    from ape_nodes.ros2.messages import RosFrame

__all__ = ["DepthTopics"]

_INFO = "sensor_msgs/msg/CameraInfo"
_log = logging.getLogger("ape_stream")


class DepthTopics:
    """The topics that depth needs.

    Args:
        topic: Of the depth images or point clouds; `.../compressedDepth` has compressed images.
        camera_info: Topic of the image's calibration.
        points: Whether the topic has point clouds.
        slop_s: Largest difference of the stamps of an image and its depth, seconds.
        rectified: The images are rectified.
    """

    def __init__(
        self, topic: str, camera_info: str, *, points: bool, slop_s: float, rectified: bool
    ) -> None:
        plain = topic.removesuffix("/compressedDepth")
        kind = "PointCloud2" if points else "Image" if topic == plain else "CompressedImage"
        self._spec = TopicSpec(topic, f"sensor_msgs/msg/{kind}", False, False, 5, False, "")
        self._infos = {"image": camera_info, "depth": f"{plain.rpartition('/')[0]}/camera_info"}
        self._pairs: DepthPairs[Any] = DepthPairs(round(1e9 * slop_s))
        self._tree = TransformTree()
        self._reader = DepthReader(self._tree, rectified=rectified)
        self._depths: Reader | None = None
        self._cameras: list[tuple[str, Reader]] = []
        self._transforms: TransformReader | None = None
        self._warned = ""

    def open(self, node: RosNode) -> None:
        """Subscribe; without tf2_msgs depth must be in the frame of the image."""
        self._depths = node.reader(self._spec.name, self._spec)
        for role, topic in self._infos.items():
            spec = TopicSpec(topic, _INFO, False, False, 5, False, "")
            self._cameras.append((role, node.reader(topic, spec)))
        if node.has_type("tf2_msgs/msg/TFMessage"):
            self._transforms = TransformReader(node, self._tree)

    def add(self, image: Any) -> Iterator[tuple[Any, Any]]:
        """Take an image; yields images that are settled, each with its depth or None."""
        yield from self._pairs.add_image(stamp_ns_of(image), image)

    def poll(self) -> Iterator[tuple[Any, Any]]:
        """Take what has arrived; yields as `add`."""
        if self._transforms is not None:
            self._transforms.poll()
        for role, reader in self._cameras:
            for info in reader.take(0.0):
                try:
                    self._reader.take_info(info, role)
                except SourceError as error:
                    self._warn(str(error))
        if self._depths is not None:
            for message in self._depths.take(0.0):
                yield from self._pairs.add_depth(stamp_ns_of(message), message)
        yield from self._pairs.overdue()

    def with_depth(self, frame: RosFrame, message: Any) -> RosFrame:
        """The frame with its depth; a warning for each new reason that it has none."""
        placed = self._reader.with_depth(frame, message)
        self._warn(self._reader.problem)
        return placed

    def _warn(self, problem: str) -> None:
        if problem and problem != self._warned:
            _log.warning("%s: images have no depth: %s", self._spec.name, problem)
        self._warned = problem

    def counts(self) -> dict[str, int]:
        """Images with and without depth."""
        return {"depth_paired": self._pairs.paired, "depth_unpaired": self._pairs.unpaired}
