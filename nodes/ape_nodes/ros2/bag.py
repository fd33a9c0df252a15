"""rosbag2 folders and MCAP files as sources and sinks, without ROS (rosbags)."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from ape_nodes.ros2.mcap import CutOffRecording, is_cut_off
from ape_nodes.ros2.messages import frame_of
from ape_nodes.ros2.publisher import ResultPublisher
from ape_nodes.ros2.topics import OUTPUTS, TopicSpec, ros_name
from ape_nodes.ros2.types import plain_encoder, type_store
from ape_stream.closing import Closing
from ape_stream.errors import ConfigError, SinkError, SourceError, TruncatedError
from ape_stream.files import refuse_unwritable
from ape_stream.optional import library
from ape_stream.sources.clock import StreamClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_nodes.ros2.messages import RosFrame
    from ape_stream.types import FrameResult

__all__ = ["BagSink", "BagSource"]

_IMAGES: Final = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_OUR_IMAGES: Final = {"label_image", "instance_image", "overlay"}
_IMAGE: Final = TopicSpec("image", _IMAGES[0], True, False, 10, False, "the input")
_MASK_TOPICS: Final = {
    "raw": {"label_image", "instance_image"},
    "compressed": {"label_image/compressed", "instance_image/compressed"},
    "none": set[str](),
}
_FLUSH_EVERY_S: Final = 1.0
_log = logging.getLogger("ape_stream")


def _path(spec: str) -> Path:
    return Path(spec.removeprefix("bag:").removeprefix("//")).expanduser()


class BagSource(Closing):
    """The images of a bag, in the order of their recording, stamps kept.

    A recording that was cut off (its recorder was killed) is read as far as it was written.

    Args:
        spec: `bag://FOLDER` (rosbag2) or `bag://FILE.mcap`.
        name: The stream's name.
        topic: Which image topic; None takes the only one that is not a mask or an overlay.

    Raises:
        ConfigError: there is no such bag.
    """

    live = False

    def __init__(self, spec: str, *, name: str = "0", topic: str | None = None) -> None:
        self._bag = _path(spec)
        if not self._bag.exists():
            raise ConfigError(f"there is no bag {self._bag}")
        self.name = name
        self._topic = topic
        self._cut_off = False
        self._reader: Any = None
        self._connections: list[Any] = []

    def __enter__(self) -> Self:
        """Open the bag and choose the topic.

        Raises:
            SourceError: it cannot be read as a bag.
            ConfigError: no topic was given and there are several, or it does not exist.
        """
        bags = library("rosbags.highlevel", "bags")
        try:
            path, self._cut_off = _recording(self._bag)
            # Bags carry their definitions; those of older recorders do not, and take the store's.
            reader = bags.AnyReader([path], default_typestore=type_store())
            reader.open()
        except SourceError:
            raise
        except Exception as error:  # damaged bags raise errors of every kind
            raise SourceError(f"{self._bag} cannot be read as a bag: {error}") from error
        self._reader = reader
        try:
            self._connections = self._choose(reader.connections)
        except ConfigError:
            reader.close()
            raise
        return self

    def _choose(self, connections: list[Any]) -> list[Any]:
        images = [c for c in connections if c.msgtype in _IMAGES]
        topics = sorted({c.topic for c in images})
        # A bag of ours also holds masks and overlays, which are images too.
        cameras = [topic for topic in topics if not _OUR_IMAGES & set(topic.split("/"))]
        topic = self._topic or (cameras[0] if len(cameras) == 1 else None)
        if topic not in topics:
            raise ConfigError(f"{self._bag}: give topic=, one of {topics or 'no image topics'}")
        return [c for c in images if c.topic == topic]

    def close(self, _error: BaseException | None = None, /) -> None:
        """Close the bag."""
        self._reader.close()

    @property
    def frame_count(self) -> int | None:
        """Images of the topic; None before the bag is open."""
        return sum(c.msgcount for c in self._connections) if self._connections else None

    def __iter__(self) -> Iterator[RosFrame]:
        """Yield every image.

        Raises:
            SourceError: none could be read.
            TruncatedError: after the last image, the recording was cut off or is damaged.
        """
        count, clock = 0, StreamClock()
        problems: list[str] = []
        for index, message in enumerate(self._messages(problems)):
            try:
                frame = clock.placed(frame_of(message, index, self.name))
            except ValueError as error:
                _log.warning("%s: image %d left out: %s", self._bag, index, error)
            else:
                yield frame
                count += 1
        if self._cut_off:
            problems.append("its recorder was interrupted")
        if problems:
            kind = TruncatedError if count else SourceError
            raise kind(f"{self._bag}: {problems[0]}; {count} images were read")

    def _messages(self, problems: list[str]) -> Iterator[Any]:
        """Messages of the topic until one cannot be read; then the list says why."""
        try:
            for connection, _, data in self._reader.messages(self._connections):
                yield self._reader.deserialize(data, connection.msgtype)
        except Exception as error:  # noqa: BLE001 (rosbags and its parsers raise errors of every kind)
            problems.append(f"it is damaged ({' '.join(str(error).split())})")


def _recording(bag: Path) -> tuple[Path | CutOffRecording, bool]:
    """What to open, and whether it was cut off.

    That is the bag, or its only recording where the folder lacks the metadata, which a recorder
    writes when it is closed.

    Raises:
        SourceError: there are several recordings, or none.
        OSError: it cannot be read.
    """
    cut_off = False
    if bag.is_dir() and not (bag / "metadata.yaml").exists():
        bag = _only_recording(bag)
        cut_off = bag.suffix == ".db3"
    if bag.suffix == ".mcap" and is_cut_off(bag):
        return CutOffRecording(bag), True
    if cut_off and bag.with_name(f"{bag.name}-journal").exists():
        with contextlib.closing(sqlite3.connect(bag)) as database:  # rosbags ignores the journal
            database.execute("SELECT name FROM sqlite_master").fetchone()  # rolls it back
    return bag, cut_off


def _only_recording(folder: Path) -> Path:
    recordings = sorted(path for path in folder.iterdir() if path.suffix in (".mcap", ".db3"))
    if len(recordings) != 1:
        names = ", ".join(path.name for path in recordings) or "no recording"
        raise SourceError(f"{folder} has no metadata.yaml, and holds {names}: name one recording")
    _log.warning("%s has no metadata.yaml: reading %s", folder, recordings[0].name)
    return recordings[0]


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

    What was written up to a second ago survives when the process is killed.

    Args:
        spec: `bag:FOLDER`; must not exist.
        storage: "mcap" or "sqlite3".
        image: False leaves the images out.
        masks: "compressed" (PNG), "raw" or "none".
        mask_encoding: "mono16", or "mono8" where all values fit.
        distro: Whose message definitions are used (humble ... lyrical).

    Raises:
        ConfigError: the folder exists, or an option is unknown.
    """

    def __init__(
        self,
        spec: str,
        *,
        storage: str = "mcap",
        image: bool = True,
        masks: str = "compressed",
        mask_encoding: str = "mono16",
        distro: str = "jazzy",
    ) -> None:
        self.name = spec
        self._folder = _path(spec)
        if self._folder.exists():
            raise ConfigError(f"{self._folder} exists already: a bag is never overwritten")
        if storage not in ("mcap", "sqlite3") or masks not in _MASK_TOPICS:
            raise ConfigError("storage is mcap or sqlite3; masks is compressed, raw or none")
        self.recorded = _MASK_TOPICS[masks]
        self._storage = storage
        self._image = image
        self._store = type_store(distro)
        self._encoder = plain_encoder(self._store, mask_encoding)
        self._specs = {spec.name: spec for spec in (*OUTPUTS, _IMAGE)}
        self._writer: Any = None
        self._flushed_s = 0.0
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
        """Write the index and the metadata."""
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
            self._streams[frame.stream] = topics, ResultPublisher(self._encoder, topics)
        topics, publisher = self._streams[frame.stream]
        header = self._encoder.header(frame)
        # The log time is the frame's: a player then shows results at the speed of the recording.
        topics.time_ns = header.stamp.sec * 10**9 + header.stamp.nanosec
        # The image first: a player that is stopped in between shows it without its results.
        if self._image:
            topics.publish("image", self._encoder.image(header, frame.image))
        publisher.publish(result)
        if time.monotonic() - self._flushed_s >= _FLUSH_EVERY_S:
            self._flush()
            self._flushed_s = time.monotonic()

    def _flush(self) -> None:
        """Hand what was written to the system: rosbags would do so when it closes."""
        storage = self._writer.storage
        if self._storage == "sqlite3":
            storage.conn.commit()
            return
        # Messages wait in a chunk in memory until it holds 1 MiB; without images that takes long.
        if storage.chunk.msgs:
            storage.close_chunk()
        storage.bio.flush()


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
