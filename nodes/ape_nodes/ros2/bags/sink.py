"""Results into rosbag2 bags, without ROS (rosbags)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from ape_nodes.ros2.bags.copy import copy_topics
from ape_nodes.ros2.bags.mcap import end_for_now
from ape_nodes.ros2.bags.source import bag_path
from ape_nodes.ros2.messages import RosFrame
from ape_nodes.ros2.publisher import ResultPublisher
from ape_nodes.ros2.space.results import Placement
from ape_nodes.ros2.topics import OUTPUTS, TopicSpec, ros_name
from ape_nodes.ros2.types import plain_encoder, type_store
from ape_stream.closing import Closing
from ape_stream.errors import ConfigError, SinkError
from ape_stream.files import refuse_unwritable
from ape_stream.optional import library

if TYPE_CHECKING:
    from ape_stream.depth.box import BoxKind
    from ape_stream.types import Frame, FrameResult

__all__ = ["BagSink"]

_IMAGES: Final = (
    TopicSpec("image", "sensor_msgs/msg/Image", True, False, 10, False, "the input"),
    TopicSpec("image/compressed", "sensor_msgs/msg/CompressedImage", True, False, 10, False, ""),
)
_MASK_TOPICS: Final = {
    "raw": {"label_image", "instance_image"},
    "compressed": {"label_image/compressed", "instance_image/compressed"},
    "none": set[str](),
}
_IN_SPACE: Final = {"detections_3d", "markers", "points"}
_FLUSH_EVERY_S: Final = 1.0


@dataclass(slots=True)
class _BagTopics:
    """The output topics of one stream in a bag."""

    sink: BagSink
    prefix: str
    time_ns: int = 0

    def has_readers(self, name: str) -> bool:
        return name in self.sink.recorded

    def publish(self, name: str, message: Any) -> None:
        self.sink.record(f"{self.prefix}/{name}", message, self.time_ns)


class BagSink(Closing):
    """Writes images, detections, masks and names into a bag for Foxglove and `ros2 bag play`.

    What was written up to a second ago survives when the process is killed, and any reader of MCAP
    takes it.

    Args:
        spec: `bag:FOLDER`; must not exist.
        storage: "mcap" or "sqlite3".
        image: "raw", "compressed" (JPEG, a fiftieth of the size) or "none"; also true and false.
        masks: "compressed" (PNG), "raw" or "none".
        overlay: Record the image with masks and names drawn in, as JPEG.
        annotations: Record boxes, contours and names for Foxglove's image panel.
        boxes: Kind of boxes of results in space: "oriented" or "axis_aligned".
        voxel_m: Side of the cubes of which one point is recorded, metres; 0 records all.
        start: When frames that do not come from ROS begin: `2026-11-29T08:00:00` (UTC unless it
            says otherwise) or seconds since 1970.
        copy: A bag whose other topics (calibration, tf, depth) are copied.
        mask_encoding: "mono16", or "mono8" where all values fit.
        distro: Whose message definitions are used (humble ... lyrical).

    Raises:
        ConfigError: the folder exists, or an option is unknown.
    """

    def __init__(  # noqa: PLR0913 (options of a plugin, all by keyword)
        self,
        spec: str,
        *,
        storage: str = "mcap",
        image: str | bool = "raw",
        masks: str = "compressed",
        mask_encoding: str = "mono16",
        overlay: bool = False,
        annotations: bool = True,
        boxes: BoxKind = "oriented",
        voxel_m: float = 0.0,
        start: str | float = 0.0,
        copy: str | None = None,
        distro: str = "jazzy",
    ) -> None:
        self.name = spec
        self._folder = bag_path(spec)
        if self._folder.exists():
            raise ConfigError(f"{self._folder} exists already: a bag is never overwritten")
        if storage not in ("mcap", "sqlite3") or masks not in _MASK_TOPICS:
            raise ConfigError("storage is mcap or sqlite3; masks is compressed, raw or none")
        images = image if isinstance(image, str) else "raw" if image else "none"
        if images not in ("raw", "compressed", "none"):
            raise ConfigError(f"image is raw, compressed or none, not {image!r}")
        self.recorded = _MASK_TOPICS[masks] | _IN_SPACE
        self.recorded |= {"overlay/compressed"} if overlay else set()
        self.recorded |= {"annotations"} if annotations else set()
        self._placement = Placement(boxes=boxes, voxel_m=voxel_m)
        self._start_ns = _start_ns(start)
        self._copied = None if copy is None else bag_path(copy)
        if self._copied is not None and not self._copied.exists():
            raise ConfigError(f"there is no bag {self._copied} to copy from")
        self._storage = storage
        self._image = images
        self._store = type_store(distro)
        self._encoder = plain_encoder(self._store, mask_encoding)
        self._specs = {spec.name: spec for spec in (*OUTPUTS, *_IMAGES)}
        self._writer: Any = None
        self._flushed_s = 0.0
        self._ended_at = -1  # where the file of an MCAP bag ends for now, bytes
        self._connections: dict[str, Any] = {}
        self._streams: dict[str, tuple[_BagTopics, ResultPublisher]] = {}

    def check(self) -> None:
        """Refuse a folder that cannot be made; see `ChecksItself`."""
        refuse_unwritable(self._folder)

    def __enter__(self) -> Self:
        """Create the bag."""
        rosbag2: Any = library("rosbags.rosbag2", "bags")
        plugin = rosbag2.StoragePlugin[self._storage.upper()]
        try:
            self._writer = rosbag2.Writer(self._folder, version=9, storage_plugin=plugin)
            self._writer.open()
        except (OSError, rosbag2.WriterError) as error:
            raise SinkError(f"{self._folder} cannot be written: {error}") from error
        return self

    def close(self, _error: BaseException | None = None, /) -> None:
        """Copy what is to be copied, and write the index and the metadata.

        Raises:
            SourceError: the bag to copy from cannot be read; what was recorded is whole.
        """
        try:
            if self._copied is not None:
                copy_topics(self._copied, self._writer, self._store)
        finally:
            if self._storage == "mcap":
                self._writer.storage.bio.truncate()  # the end for now
            self._writer.close()

    def record(self, topic: str, message: Any, time_ns: int) -> None:
        """Write one message under `<stream>/<output>` with this log time."""
        spec = self._specs[topic.split("/", 1)[1]]
        # A topic is registered with its first message: streams are not known at the start.
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                f"/ape/{topic}", spec.type, typestore=self._store,
                offered_qos_profiles=[_profile(spec)],
            )  # fmt: skip
        data = self._store.serialize_cdr(message, spec.type)
        self._writer.write(self._connections[topic], time_ns, data)

    def write(self, result: FrameResult) -> None:
        """Record a result at the time of its frame."""
        frame = result.frame
        if frame.stream not in self._streams:
            topics = _BagTopics(self, ros_name(frame.stream))
            publisher = ResultPublisher(self._encoder, topics, self._placement)
            self._streams[frame.stream] = topics, publisher
        topics, publisher = self._streams[frame.stream]
        result = replace(result, frame=self._stamped(frame))
        frame = result.frame
        header = self._encoder.header(frame)
        # The log time is the frame's: a player then shows results at the speed of the recording.
        topics.time_ns = header.stamp.sec * 10**9 + header.stamp.nanosec
        # The image first: a player that is stopped in between shows it without its results.
        if self._image == "raw":
            topics.publish("image", self._encoder.image(header, frame.image))
        elif self._image == "compressed":
            topics.publish("image/compressed", self._encoder.compressed(header, frame.image))
        publisher.write(result)
        if time.monotonic() - self._flushed_s >= _FLUSH_EVERY_S:
            self._flush()
            self._flushed_s = time.monotonic()
        if self._storage == "mcap" and self._writer.storage.bio.tell() != self._ended_at:
            end_for_now(self._writer.storage.bio)
            self._ended_at = self._writer.storage.bio.tell()

    def _stamped(self, frame: Frame) -> Frame:
        """The frame with a stamp that counts from `start`, unless it has one of its own."""
        if isinstance(frame, RosFrame) or not self._start_ns:
            return frame
        return replace(frame, time_s=frame.time_s + self._start_ns / 1e9)

    def _flush(self) -> None:
        """Hand what was written to the system: rosbags would do so when it closes."""
        storage = self._writer.storage
        if self._storage == "sqlite3":
            storage.conn.commit()
            return
        # Messages wait in a chunk in memory until it holds 1 MiB; without images that takes long.
        if storage.chunk.msgs:
            storage.close_chunk()


def _profile(spec: TopicSpec) -> Any:
    """The QoS that `ros2 bag play` publishes with: late readers get the names, too."""
    kinds: Any = library("rosbags.interfaces", "bags")
    # ROS writes an infinite duration as the largest one.
    forever = kinds.QosTime(9223372036, 854775807)
    return kinds.Qos(
        history=kinds.QosHistory.KEEP_LAST,
        depth=spec.depth,
        reliability=kinds.QosReliability.RELIABLE,
        durability=(
            kinds.QosDurability.TRANSIENT_LOCAL if spec.latched else kinds.QosDurability.VOLATILE
        ),
        deadline=forever,
        lifespan=forever,
        liveliness=kinds.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )


def _start_ns(start: str | float) -> int:
    """Nanoseconds since 1970 of a date or of seconds.

    Raises:
        ConfigError: it is neither, or before 1970.
    """
    try:
        seconds = float(start)
    except ValueError:
        try:
            date = datetime.fromisoformat(str(start))
        except ValueError as error:
            raise ConfigError(
                f"start={start!r} is no date such as 2026-11-29T08:00:00, and no seconds"
            ) from error
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    if not 0 <= seconds < 2**31:
        raise ConfigError(f"start={start!r} is not between 1970 and 2038, as ROS 2 stamps are")
    return round(seconds * 1e9)
