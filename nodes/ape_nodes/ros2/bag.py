"""rosbag2 folders and MCAP files as sources and sinks, without ROS (rosbags)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ape_nodes.ros2.messages import ResultPublisher, RosFrame, frame_of
from ape_nodes.ros2.topics import OUTPUTS, TopicSpec
from ape_nodes.ros2.types import plain_encoder, type_store
from ape_stream.errors import ConfigError, SinkError, SourceError
from ape_stream.optional import library

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["BagSink", "BagSource"]

if TYPE_CHECKING:
    from ape_stream.types import FrameResult

_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_OURS = {"label_image", "instance_image", "overlay"}
_RECORDED_IMAGE = TopicSpec("image", _IMAGES[0], True, False, 10, False, "the input")


def _path(spec: str, scheme: str) -> Path:
    return Path(spec.removeprefix(scheme).removeprefix("//")).expanduser()


class BagSource:
    """The images of a bag, in the order of their recording, stamps kept.

    Args:
        spec: `bag://FOLDER` (rosbag2) or `bag://FILE.mcap`.
        name: The stream's name.
        topic: Which image topic; None takes the only one that is no mask or overlay.

    Raises:
        ConfigError: there is no such bag.
    """

    live = False

    def __init__(self, spec: str, *, name: str = "0", topic: str | None = None) -> None:
        self._bag = _path(spec, "bag:")
        if not self._bag.exists():
            raise ConfigError(f"there is no bag {self._bag}")
        self.name = name
        self._topic = topic
        self._reader: Any = None
        self._connections: list[Any] = []

    def __enter__(self) -> Self:
        """Open the bag and choose the topic."""
        reader: Any = library("rosbags.highlevel", "bags").AnyReader(
            [self._bag], default_typestore=type_store()
        )
        try:
            reader.open()
        except Exception as error:
            raise SourceError(f"{self._bag} cannot be read as a bag: {error}") from error
        self._reader = reader
        try:
            self._connections = self._choose(reader.connections)
        except ConfigError:
            reader.close()
            raise
        return self

    def _choose(self, connections: list[Any]) -> list[Any]:
        pictures = [c for c in connections if c.msgtype in _IMAGES]
        topics = sorted({c.topic for c in pictures})
        cameras = [topic for topic in topics if not _OURS & set(topic.split("/"))]
        wanted = self._topic or (cameras[0] if len(cameras) == 1 else None)
        if wanted not in topics:
            raise ConfigError(f"{self._bag}: say topic=, one of {topics or 'no image topics'}")
        return [c for c in pictures if c.topic == wanted]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the bag."""
        self._reader.close()

    @property
    def frame_count(self) -> int | None:
        """Images of the topic."""
        return sum(c.msgcount for c in self._connections) if self._connections else None

    def __iter__(self) -> Iterator[RosFrame]:
        """Yield every image.

        Raises:
            SourceError: a message is broken, or the pixels cannot be read.
        """
        messages = self._reader.messages(self._connections)
        for index, (connection, _, data) in enumerate(messages):
            try:
                message = self._reader.deserialize(data, connection.msgtype)
            except Exception as error:
                raise SourceError(f"{self._bag}: image {index} is broken: {error}") from error
            yield frame_of(message, index, self.name)


@dataclass(slots=True)
class _Port:
    """The output topics of one stream in a bag."""

    sink: BagSink
    prefix: str
    time_ns: int = 0

    def has_readers(self, name: str) -> bool:
        return name in self.sink.recorded

    def publish(self, name: str, message: Any) -> None:
        self.sink.record(f"{self.prefix}/{name}", message, self.time_ns)


class BagSink:
    """Writes images, detections, masks and names into a bag for Foxglove and `ros2 bag play`.

    Args:
        spec: `bag:FOLDER`; must not exist.
        storage: "mcap" or "sqlite3".
        image: False leaves the pictures out.
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
        self._folder = _path(spec, "bag:")
        if self._folder.exists():
            raise ConfigError(f"{self._folder} exists already: a bag is never overwritten")
        if storage not in ("mcap", "sqlite3") or masks not in ("compressed", "raw", "none"):
            raise ConfigError("storage is mcap or sqlite3; masks is compressed, raw or none")
        maps = {"label_image", "instance_image"}
        chosen = {"compressed": {f"{m}/compressed" for m in maps}, "raw": maps, "none": set()}
        self.recorded: set[str] = chosen[masks]
        self._storage = storage
        self._image = image
        self._store = type_store(distro)
        self._encoder = plain_encoder(self._store, mask_encoding)
        self._specs = {spec.name: spec for spec in (*OUTPUTS, _RECORDED_IMAGE)}
        self._writer: Any = None
        self._connections: dict[str, Any] = {}
        self._streams: dict[str, tuple[_Port, ResultPublisher]] = {}

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the bag."""
        self._writer.close()

    def record(self, topic: str, message: Any, time_ns: int) -> None:
        """Write one message under `<stream>/<output>`, stamped with this log time."""
        spec = self._specs[topic.split("/", 1)[1]]
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
            letters = "".join(c if c.isalnum() and c.isascii() else "_" for c in frame.stream)
            port = _Port(self, f"s{letters}" if letters[:1].isdigit() else letters or "stream")
            self._streams[frame.stream] = port, ResultPublisher(self._encoder, port)
        port, publisher = self._streams[frame.stream]
        header = self._encoder.header(frame)
        port.time_ns = header.stamp.sec * 10**9 + header.stamp.nanosec
        if self._image:
            port.publish("image", self._encoder.image(header, frame.image))
        publisher.publish(result)


def _profile(spec: TopicSpec) -> Any:
    """The QoS that `ros2 bag play` publishes with: names reach late readers."""
    kinds: Any = library("rosbags.interfaces", "bags")
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
