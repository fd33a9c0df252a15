"""rosbag2 folders and MCAP files as sources, without ROS (rosbags)."""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from ape_nodes.ros2.bags.mcap import CutOffRecording, is_cut_off
from ape_nodes.ros2.messages import frame_of
from ape_nodes.ros2.space.depth import DepthPairs, DepthReader, stamp_ns_of
from ape_nodes.ros2.space.tf import TransformTree
from ape_nodes.ros2.types import type_store
from ape_nodes.ros2.video import VideoDecoder, is_packet
from ape_stream.closing import Closing
from ape_stream.errors import ConfigError, SourceError, TruncatedError
from ape_stream.optional import library
from ape_stream.sources.clock import StreamClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_nodes.ros2.messages import RosFrame

__all__ = ["IMAGE_TYPES", "BagSource", "bag_path", "open_bag"]

IMAGE_TYPES: Final = (
    "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage",
    "foxglove_msgs/msg/CompressedVideo", "ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
)  # fmt: skip
_DEPTHS: Final = (
    "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/PointCloud2",
)  # fmt: skip
_INFO: Final = "sensor_msgs/msg/CameraInfo"
_TF: Final = {"/tf": False, "/tf_static": True}
_TRANSFORM_NS: Final = 200_000_000
"""How much later than an image the transform after its stamp may be recorded."""
_PART: Final = re.compile(r"_\d+$")
"""How rosbag2 numbers the files of a recording that it splits."""
_OUR_IMAGES: Final = {"label_image", "instance_image", "confidence_image", "overlay"}
_log = logging.getLogger("ape_stream")


def bag_path(spec: str) -> Path:
    """The path in `bag:FOLDER` or `bag://FILE`."""
    return Path(spec.removeprefix("bag:").removeprefix("//")).expanduser()


class BagSource(Closing):
    """The images of a bag, in the order of their recording, stamps kept.

    A recording that was cut off (its recorder was killed) is read as far as it was written.

    Args:
        spec: `bag://FOLDER` (rosbag2) or `bag://FILE.mcap`.
        name: The stream's name.
        topic: Which image topic; None takes the only one that is not a mask, an overlay or depth.
        depth: Topic of a depth image or a point cloud, for results in space; None: none.
        camera_info: Topic of the image's calibration; None: `camera_info` next to the image.
        slop_s: Largest difference of the stamps of an image and its depth, seconds.
        rectified: The images are rectified.

    Raises:
        ConfigError: there is no such bag.
    """

    live = False

    def __init__(
        self,
        spec: str,
        *,
        name: str = "0",
        topic: str | None = None,
        depth: str | None = None,
        camera_info: str | None = None,
        slop_s: float = 0.02,
        rectified: bool = False,
    ) -> None:
        self._bag = bag_path(spec)
        if not self._bag.exists():
            raise ConfigError(f"there is no bag {self._bag}")
        self.name = name
        self._topic = topic
        self._depth_topic = depth
        self._info_topic = camera_info
        self._pairs: DepthPairs[Any] = DepthPairs(round(1e9 * slop_s))
        self._transforms = TransformTree()
        self._depth = DepthReader(self._transforms, rectified=rectified, live=False)
        self._cut_off = False
        self._reader: Any = None
        self._connections: list[Any] = []
        self._others: dict[str, str] = {}
        self._warned = ""
        self._problems: list[str] = []

    def __enter__(self) -> Self:
        """Open the bag and choose the topic.

        Raises:
            SourceError: it cannot be read as a bag.
            ConfigError: no topic was given and there are several, or it does not exist.
        """
        reader, self._cut_off = open_bag(self._bag)
        self._reader = reader
        try:
            self._connections = self._choose(reader.connections)
            for kind in {c.msgtype for c in self._connections} | {*self._types()}:
                _check_definition(self._bag, reader.typestore, kind)
        except (ConfigError, SourceError):
            reader.close()
            raise
        return self

    def _types(self) -> Iterator[str]:
        """Types of the other topics that are read."""
        yield from (c.msgtype for c in self._reader.connections if c.topic in self._others)

    def _choose(self, connections: list[Any]) -> list[Any]:
        images = [
            c for c in connections if c.msgtype in IMAGE_TYPES and c.topic != self._depth_topic
        ]
        topics = sorted({c.topic for c in images})
        # A bag of ours also holds masks and overlays, which are images too, and others have depth.
        cameras = [topic for topic in topics if not _OUR_IMAGES & set(topic.split("/"))]
        if len(cameras) > 1:
            cameras = [topic for topic in cameras if "depth" not in topic]
        topic = self._topic or (cameras[0] if len(cameras) == 1 else None)
        if not topics and self._cut_off:
            raise SourceError(f"{self._bag}: its recorder was interrupted before the first image")
        if topic is None or topic not in topics:
            raise ConfigError(f"{self._bag}: give topic=, one of {topics or 'no image topics'}")
        self._others = self._choose_others(connections, topic)
        return [c for c in images if c.topic == topic]

    def _choose_others(self, connections: list[Any], image: str) -> dict[str, str]:
        """Topics that depth needs, each with its part: depth, image (calibration) or tf."""
        if self._depth_topic is None:
            return {}
        kinds = {c.topic: c.msgtype for c in connections}
        near = f"{image.removesuffix('/compressed').rpartition('/')[0]}/camera_info"
        info = self._info_topic or near
        for topic, wanted in ((self._depth_topic, _DEPTHS), (info, (_INFO,))):
            if kinds.get(topic) not in wanted:
                have = sorted(name for name, kind in kinds.items() if kind in wanted)
                raise ConfigError(
                    f"{self._bag}: there is no {topic} of {' or '.join(wanted)}; it has"
                    f" {', '.join(have) or 'none'}"
                )
        plain = self._depth_topic.removesuffix("/compressedDepth")
        own = f"{plain.rpartition('/')[0]}/camera_info"
        found = {self._depth_topic: "pair", info: "image"}
        if kinds.get(own) == _INFO and own != info:
            found[own] = "depth"
        return found | {name: "tf" for name in _TF if name in kinds}

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
        refused: Exception | None = None
        for index, (message, depth) in enumerate(self._paired()):
            try:
                frame = clock.placed(self._frame(message, depth, index))
            except (ValueError, SourceError) as error:
                _log.warning("%s: image %d left out: %s", self._bag, index, error)
                refused = refused or error
            else:
                yield frame
                count += 1
        if refused is not None and not count:
            raise SourceError(f"{self._bag}: none of its images can be used: {refused}")
        if self._cut_off:
            self._problems.append("its recorder was interrupted")
        if self._problems:
            kind = TruncatedError if count else SourceError
            raise kind(f"{self._bag}: {self._problems[0]}; {count} images were read")

    def _frame(self, message: Any, depth: Any, index: int) -> RosFrame:
        frame = frame_of(message, index, self.name)
        if self._depth_topic is None:
            return frame
        placed = self._depth.with_depth(frame, depth)
        if self._depth.problem and self._depth.problem != self._warned:
            _log.warning("%s: image %d has no depth: %s", self._bag, index, self._depth.problem)
        self._warned = self._depth.problem
        return placed

    def _paired(self) -> Iterator[tuple[Any, Any]]:
        """Images in their order, each with its depth message where there is one."""
        if self._depth_topic is None:
            for message in self._images():
                yield message, None
            return
        held: deque[tuple[int, Any]] = deque()
        for time_ns, topic, message in self._messages():
            held += [(time_ns, pair) for pair in self._taken(topic, message)]
            # The transform that follows an image is needed for the one at its stamp.
            while held and held[0][0] <= time_ns - _TRANSFORM_NS:
                yield held.popleft()[1]
        yield from (pair for _, pair in held)
        yield from self._pairs.end()

    def _taken(self, topic: str, message: Any) -> Iterator[tuple[Any, Any]]:
        """Take a message; yields images that are settled, each with its depth or None."""
        part = self._others.get(topic)
        if part is None:
            yield from self._pairs.add_image(stamp_ns_of(message), message)
        elif part == "pair":
            yield from self._pairs.add_depth(stamp_ns_of(message), message)
        elif part == "tf":
            self._transforms.add(message, static=_TF[topic])
        else:
            self._depth.take_info(message, part)

    def _images(self) -> Iterator[Any]:
        decoder = VideoDecoder()
        for _, _, message in self._messages():
            if is_packet(message):
                yield from self._decoded(decoder, message)
            else:
                yield message

    def _decoded(self, decoder: VideoDecoder, message: Any) -> Iterator[Any]:
        """What a packet of a video gives; one before the first key frame is left out."""
        try:
            yield from decoder.decode(message)
        except SourceError as error:
            _log.warning("%s: packet left out: %s", self._bag, error)

    def _messages(self) -> Iterator[tuple[int, str, Any]]:
        """Messages with the time of their recording, nanoseconds, and their topic.

        They end with the first that cannot be read; `_problems` then says why.
        """
        others = [c for c in self._reader.connections if c.topic in self._others]
        # Latched topics first: static transforms may have been recorded after the first image.
        early = [c for c in others if c.topic == "/tf_static" or self._others[c.topic] == "image"]
        wanted = (early, [*self._connections, *others]) if others else (self._connections,)
        try:
            for chosen in wanted:
                for connection, time_ns, data in self._reader.messages(chosen):
                    message = self._reader.deserialize(data, connection.msgtype)
                    yield time_ns, connection.topic, message
        except Exception as error:  # noqa: BLE001 (rosbags and its parsers raise errors of every kind)
            self._problems.append(f"it is damaged ({' '.join(str(error).split())})")


def open_bag(bag: Path) -> tuple[Any, bool]:
    """A reader of the bag, opened, and whether its recording was cut off.

    Raises:
        SourceError: it cannot be read as a bag.
    """
    bags = library("rosbags.highlevel", "bags")
    try:
        parts, cut_off = _recordings(bag)
        # Bags carry their definitions; those of older recorders do not, and take the store's.
        reader = bags.AnyReader(parts, default_typestore=type_store())
        reader.open()
    except SourceError:
        raise
    except Exception as error:  # damaged bags raise errors of every kind
        why = " ".join(str(error).split())  # YAML's parser takes several lines
        raise SourceError(f"{bag} cannot be read as a bag: {why}") from error
    return reader, cut_off


def _check_definition(bag: Path, store: Any, kind: str) -> None:
    """Refuse a bag whose own definition of a type lacks fields of the type of this name.

    Raises:
        SourceError: it does.
    """
    ours, theirs = type_store().fielddefs, store.fielddefs
    if kind not in ours:
        return
    has = {name for name, _ in theirs[kind][1]} if kind in theirs else set()
    for name, (node, detail) in ours[kind][1]:
        if name not in has:
            raise SourceError(f"{bag} cannot be read: its definition of {kind} has no {name}")
        if node.name == "NAME":  # a message within it
            _check_definition(bag, store, detail)


def _recordings(bag: Path) -> tuple[list[Path | CutOffRecording], bool]:
    """What to open, and whether it was cut off.

    That is the bag, or the parts of its recording where the folder lacks the metadata, which a
    recorder writes when it is closed.

    Raises:
        SourceError: there are several recordings, or none.
        OSError: it cannot be read.
    """
    crashed = bag.is_dir() and not (bag / "metadata.yaml").exists()
    parts = _parts(bag) if crashed else [bag]
    found = [_repaired(part, crashed=crashed) for part in parts]
    databases = crashed and any(part.suffix == ".db3" for part in parts)
    return found, databases or any(isinstance(one, CutOffRecording) for one in found)


def _repaired(part: Path, *, crashed: bool) -> Path | CutOffRecording:
    """A file, or how one that was cut off can be read."""
    if part.suffix == ".mcap" and is_cut_off(part):
        return CutOffRecording(part)
    if crashed and part.with_name(f"{part.name}-journal").exists():
        with contextlib.closing(sqlite3.connect(part)) as database:  # rosbags ignores the journal
            database.execute("SELECT name FROM sqlite_master").fetchone()  # rolls it back
    return part


def _parts(folder: Path) -> list[Path]:
    """The files of the one recording in a folder: `drive.mcap`, or `drive_0.mcap` and so on."""
    found = sorted(path for path in folder.iterdir() if path.suffix in (".mcap", ".db3"))
    recordings = {(_PART.sub("", path.stem), path.suffix) for path in found}
    names = ", ".join(path.name for path in found) or "no recording"
    if len(recordings) != 1:
        raise SourceError(f"{folder} has no metadata.yaml, and holds {names}: name one recording")
    _log.warning("%s has no metadata.yaml: reading %s", folder, names)
    # A recorder that was killed at the start of a part leaves an empty file.
    return [path for path in found if path.stat().st_size] or found
