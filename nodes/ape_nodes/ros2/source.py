"""Frames in from ROS 2 topics: `ros2:///camera/image_raw`, raw or compressed."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from ape_nodes.ros2.backend import choose, open_node
from ape_nodes.ros2.messages import frame_of
from ape_nodes.ros2.space.depth_topics import DepthTopics
from ape_nodes.ros2.topics import TopicSpec, ros_name
from ape_nodes.ros2.video import VideoDecoder
from ape_stream.closing import Closing
from ape_stream.errors import ConfigError, SourceError
from ape_stream.sources.clock import StreamClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ape_nodes.ros2.backend import Reader, RosNode
    from ape_nodes.ros2.messages import RosFrame

__all__ = ["Ros2Source"]

_POLL_S = 0.2
_log = logging.getLogger("ape_stream")


class Ros2Source(Closing):
    """The images of a topic, with or without a ROS installation; only the newest one waits.

    Stamps that step back (a bag that is played again, a reset clock) begin a new segment. An image
    that cannot be read, or with an impossible stamp, is left out with a warning, and counted.

    Args:
        spec: `ros2:///camera/image_raw`; a topic that ends in `/compressed` holds CompressedImage.
        name: The stream's name.
        reliable: True asks for reliable delivery (the writer must offer it).
        domain_id: ROS_DOMAIN_ID; None reads the environment.
        timeout_s: Longest time without an image.
        distro: Whose message definitions are used (humble ... lyrical; dds only).
        backend: "dds", "rclpy", or "auto": dds where its extra is installed, else rclpy.
        depth: Topic of a depth image, or with `points=true` of a point cloud; None: no depth.
        points: Whether `depth` is a topic of point clouds.
        camera_info: Topic of the image's calibration; None: `camera_info` next to the image.
        slop_s: Largest difference of the stamps of an image and its depth, seconds.
        rectified: The images are rectified.

    Raises:
        ConfigError: the topic's name or an option cannot be used.
        PluginError: what the backend needs is not installed.
    """

    live = True

    def __init__(  # noqa: PLR0913 (a plugin's options are its keyword arguments)
        self,
        spec: str,
        *,
        name: str = "0",
        reliable: bool = False,
        domain_id: int | None = None,
        timeout_s: float = 30.0,
        distro: str = "jazzy",
        backend: str = "auto",
        depth: str | None = None,
        points: bool = False,
        camera_info: str | None = None,
        slop_s: float = 0.02,
        rectified: bool = False,
    ) -> None:
        # ros2:///camera/image_raw: two slashes of the scheme, one of the topic.
        topic = "/" + spec.removeprefix("ros2://").strip("/")
        if not all(part.isidentifier() for part in topic[1:].split("/")):
            raise ConfigError(f"{spec!r}: write ros2:///camera/image_raw, a topic's full name")
        # image_transport's convention: the type cannot be asked for before the topic is published.
        self._spec = TopicSpec(topic, _type_of(topic), reliable, False, 5, False, "")
        self._video = VideoDecoder() if topic.endswith(("/ffmpeg", "/video")) else None
        near = f"{topic.removesuffix('/compressed').rpartition('/')[0]}/camera_info"
        self._depth = None
        if depth is not None:
            self._depth = DepthTopics(
                depth, camera_info or near, points=points, slop_s=slop_s, rectified=rectified
            )
        self.name = name
        self._domain_id = domain_id
        self._timeout_s = timeout_s
        self._distro = distro
        self._backend = choose(backend)
        self._node: RosNode | None = None
        self._reader: Reader | None = None
        self._in_use = threading.Lock()  # a node must not be closed while its reader waits
        self._closing = threading.Event()
        self._clock = StreamClock()
        self._received = self._unreadable = 0

    def __enter__(self) -> Self:
        """Join the graph and subscribe."""
        name = f"ape_source_{ros_name(self.name)}"
        node = open_node(self._backend, name, "/", self._domain_id, self._distro)
        self._node, self._reader = node, node.reader(self._spec.name, self._spec)
        if self._depth is not None:
            self._depth.open(node)
        self._closing.clear()
        return self

    def close(self, _error: BaseException | None = None, /) -> None:
        """Leave the graph once the reader's present wait is over; the loop over frames ends."""
        self._closing.set()  # the loop would get the lock again and again: a lock is not fair
        with self._in_use:
            node, self._node, self._reader = self._node, None, None
            if node is not None:
                node.close()

    def __iter__(self) -> Iterator[RosFrame]:
        """Yield the images as they arrive.

        Raises:
            SourceError: nothing arrived for `timeout_s`.
        """
        arrived_s = time.monotonic()
        while (messages := self._take()) is not None:
            if messages:
                arrived_s = time.monotonic()
            yield from self._frames(messages)
            if time.monotonic() - arrived_s > self._timeout_s:
                raise SourceError(
                    f"no image came on {self._spec.name} for {self._timeout_s:g} s: is it"
                    " published, in this ROS_DOMAIN_ID?"
                )

    def _frames(self, messages: list[Any]) -> Iterator[RosFrame]:
        """The frames of messages; with depth, each when it is known what belongs to it."""
        for message in self._images(messages):
            pairs = [(message, None)] if self._depth is None else self._depth.add(message)
            yield from self._made(pairs)
        if self._depth is not None:
            yield from self._made(self._depth.poll())

    def _made(self, pairs: Iterable[tuple[Any, Any]]) -> Iterator[RosFrame]:
        for image, depth in pairs:
            if (frame := self._frame(image, depth)) is not None:
                yield frame

    def _images(self, messages: list[Any]) -> Iterator[Any]:
        """The messages, or what the packets of a video give."""
        for message in messages:
            if self._video is None:
                yield message
                continue
            try:
                yield from self._video.decode(message)
            except SourceError as error:
                self._unreadable += 1
                _log.warning("%s: packet left out: %s", self._spec.name, error)

    def _frame(self, message: Any, depth: Any) -> RosFrame | None:
        """The frame of a message; one that cannot be used is counted and left out."""
        self._received += 1
        try:
            frame = frame_of(message, self._received - 1, self.name)
            if self._depth is not None:
                frame = self._depth.with_depth(frame, depth)
            return self._clock.placed(frame, time.monotonic())
        except (SourceError, ValueError) as error:
            self._unreadable += 1
            _log.warning("%s: image left out: %s", self._spec.name, error)
            return None

    def stats(self) -> dict[str, int]:
        """Images received, those left out as unreadable, and how often their time restarted."""
        paired = {} if self._depth is None else self._depth.counts()
        return {
            "received": self._received,
            "unreadable": self._unreadable,
            "restarts": self._clock.restarts,
            **paired,
        }

    def _take(self) -> list[Any] | None:
        """What has arrived, perhaps nothing; None once this source is closed."""
        with self._in_use:
            if self._reader is None or self._closing.is_set():
                return None
            # A list: messages must be taken while the lock keeps the node alive.
            return list(self._reader.take(_POLL_S))


def _type_of(topic: str) -> str:
    """The type of an image topic, by the names that image_transport gives."""
    suffix = topic.rpartition("/")[2]
    return {
        "compressed": "sensor_msgs/msg/CompressedImage",
        "ffmpeg": "ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
        "video": "foxglove_msgs/msg/CompressedVideo",
    }.get(suffix, "sensor_msgs/msg/Image")
