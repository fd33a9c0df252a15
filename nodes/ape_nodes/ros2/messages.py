"""Results -> ROS 2 messages, once for every backend.

`Encoder` is given the message classes of its backend: rosbags' (dds, bags) or ROS's own (rclpy).
Both are made from keyword arguments, so the messages are built in one place only.
"""

from __future__ import annotations

import array
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ape_nodes.ros2.images import from_compressed, to_bgr, to_jpeg, to_png
from ape_stream.errors import ConfigError
from ape_stream.masks import label_map
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from ape_nodes.ros2.diagnostics import Health
    from ape_stream.types import FrameResult, PromptSet

__all__ = ["Encoder", "Port", "ResultPublisher", "RosFrame", "as_array", "frame_of"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RosFrame(Frame):
    """A frame that came in a ROS message: its header goes out again, to the nanosecond."""

    stamp_ns: int = 0
    """header.stamp in nanoseconds."""
    frame_id: str = ""
    """header.frame_id."""


class Port(Protocol):
    """Where messages go out."""

    def has_readers(self, name: str) -> bool:
        """Whether anybody listens to this output topic now."""

    def publish(self, name: str, message: Any) -> None:
        """Send a message to this output topic."""


def frame_of(message: Any, index: int, stream: str) -> RosFrame:
    """The frame of an Image or CompressedImage, its header kept.

    Raises:
        SourceError: the pixels cannot be read.
    """
    compressed = not hasattr(message, "encoding")
    stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    return RosFrame(
        image=from_compressed(message.data) if compressed else to_bgr(message),
        index=index,
        time_s=stamp_ns / 1e9,
        stream=stream,
        captured_ns=time.monotonic_ns(),
        stamp_ns=stamp_ns,
        frame_id=message.header.frame_id,
    )


def as_array(data: bytes | memoryview) -> array.array[int]:
    """Bytes as rclpy takes them fast; a numpy array there costs 1,142 ms a frame."""
    made = array.array("B")
    made.frombytes(data)
    return made


class Encoder:
    """Builds messages.

    Args:
        message: The class of a ROS 2 type by its name ("std_msgs/msg/Header").
        blob: How this backend wants the bytes of a `uint8[]`.
        mask_encoding: "mono16", or "mono8" to use 8 bits where all values fit.

    Raises:
        ConfigError: there is no such mask encoding.
    """

    def __init__(
        self,
        message: Callable[[str], type],
        blob: Callable[[bytes | memoryview], Any],
        mask_encoding: str = "mono16",
    ) -> None:
        if mask_encoding not in ("mono8", "mono16"):
            raise ConfigError(f"mask_encoding={mask_encoding!r} is none of mono8, mono16")
        self._message = message
        self._blob = blob
        self._mask_encoding = mask_encoding

    def header(self, frame: Frame) -> Any:
        """The header of this frame: copied whole where it came from ROS."""
        if isinstance(frame, RosFrame):
            stamp_ns, frame_id = frame.stamp_ns, frame.frame_id
        else:
            stamp_ns, frame_id = max(0, round(frame.time_s * 1e9)), frame.stream
        return self._header(stamp_ns, frame_id)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        stamp = self._message("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)
        return self._message("std_msgs/msg/Header")(stamp=stamp, frame_id=frame_id)

    def image(self, header: Any, pixels: NDArray[Any]) -> Any:
        """bgr8 of (H, W, 3) uint8; mono8 or mono16 (little endian) of (H, W).

        The message may look into `pixels` instead of copying them: send it before they change.
        """
        encoding = "bgr8" if pixels.ndim == 3 else f"mono{8 * pixels.itemsize}"
        raw = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
        return self._message("sensor_msgs/msg/Image")(
            header=header,
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=raw.strides[0],
            data=self._blob(raw.reshape(-1).view(np.uint8).data),
        )

    def compressed(self, header: Any, pixels: NDArray[Any]) -> Any:
        """PNG of a map, JPEG of a picture, named as compressed_image_transport names them."""
        if pixels.ndim == 3:
            form, data = "bgr8; jpeg compressed bgr8", to_jpeg(pixels)
        else:
            form, data = f"mono{8 * pixels.itemsize}; png compressed ", to_png(pixels)
        compressed = self._message("sensor_msgs/msg/CompressedImage")
        return compressed(header=header, format=form, data=self._blob(data))

    def label_info(self, header: Any, prompts: PromptSet) -> Any:
        """Class k is prompt k-1; the threshold is the lowest in force."""
        named = self._message("vision_msgs/msg/VisionClass")
        classes = [named(class_id=k, class_name=p.text) for k, p in enumerate(prompts, 1)]
        threshold = min((p.threshold for p in prompts if p.threshold is not None), default=0.0)
        return self._message("vision_msgs/msg/LabelInfo")(
            header=header, class_map=classes, threshold=float(threshold)
        )

    def detections(self, header: Any, result: FrameResult) -> Any:
        """One Detection2D per instance, in the order of `instance_image`."""
        found = [self._detection(header, result, k) for k in range(len(result.instances))]
        return self._message("vision_msgs/msg/Detection2DArray")(header=header, detections=found)

    def _detection(self, header: Any, result: FrameResult, place: int) -> Any:
        found = result.instances
        hypothesis = self._message("vision_msgs/msg/ObjectHypothesis")(
            class_id=result.prompts[int(found.prompt_ids[place])].text,
            score=float(found.scores[place]),
        )
        scored = self._message("vision_msgs/msg/ObjectHypothesisWithPose")(
            hypothesis=hypothesis, pose=self._no_pose()
        )
        track = 0 if found.track_ids is None else int(found.track_ids[place])
        return self._message("vision_msgs/msg/Detection2D")(
            header=header,
            results=[scored],
            bbox=self._box(*found.boxes[place].tolist()),
            id=str(track) if track else "",
        )

    def _box(self, x1: float, y1: float, x2: float, y2: float) -> Any:
        middle = self._message("vision_msgs/msg/Point2D")(x=(x1 + x2) / 2, y=(y1 + y2) / 2)
        center = self._message("vision_msgs/msg/Pose2D")(position=middle, theta=0.0)
        box = self._message("vision_msgs/msg/BoundingBox2D")
        return box(center=center, size_x=x2 - x1, size_y=y2 - y1)

    def _no_pose(self) -> Any:
        point = self._message("geometry_msgs/msg/Point")(x=0.0, y=0.0, z=0.0)
        turn = self._message("geometry_msgs/msg/Quaternion")(x=0.0, y=0.0, z=0.0, w=1.0)
        pose = self._message("geometry_msgs/msg/Pose")(position=point, orientation=turn)
        return self._message("geometry_msgs/msg/PoseWithCovariance")(
            pose=pose, covariance=np.zeros(36)
        )

    def diagnostics(
        self, stamp_ns: int, name: str, health: Health, values: Mapping[str, Any]
    ) -> Any:
        """A DiagnosticArray with one status; each value as text."""
        pair = self._message("diagnostic_msgs/msg/KeyValue")
        kind = self._message("diagnostic_msgs/msg/DiagnosticStatus")
        status = kind(
            level=getattr(kind, health.level),  # an int to rosbags, one byte to rclpy
            name=name,
            message=health.message,
            hardware_id="",
            values=[pair(key=key, value=str(value)) for key, value in values.items()],
        )
        array_of = self._message("diagnostic_msgs/msg/DiagnosticArray")
        return array_of(header=self._header(stamp_ns, ""), status=[status])

    def class_map(self, result: FrameResult) -> NDArray[Any]:
        """(H, W) map of class ids, small masks over large ones."""
        found = result.instances
        return self._narrow(label_map(found.masks, found.size, (found.prompt_ids + 1).tolist()))

    def instance_map(self, result: FrameResult) -> NDArray[Any]:
        """(H, W) map of detection numbers from 1."""
        return self._narrow(label_map(result.instances.masks, result.instances.size))

    def _narrow(self, values: NDArray[np.uint16]) -> NDArray[Any]:
        if self._mask_encoding == "mono8" and (values.size == 0 or int(values.max()) <= 255):
            return values.astype(np.uint8)
        return values


def _overlay(result: FrameResult) -> NDArray[np.uint8]:
    from ape_stream.draw import draw  # noqa: PLC0415 (it brings supervision: a second to import)

    return draw(result)


class ResultPublisher:
    """Sends what a result holds to the topics of a node, each map made once and only if wanted.

    Args:
        encoder: Builds the messages.
        port: Where they go.
    """

    def __init__(self, encoder: Encoder, port: Port) -> None:
        self._encoder = encoder
        self._port = port
        self._told: PromptSet | None = None

    def publish(self, result: FrameResult) -> None:
        """Send a result; names first, so that no map is ever read with the wrong ones."""
        for name, message in self.messages(result, self._port.has_readers):
            self._port.publish(name, message)

    def messages(
        self, result: FrameResult, wanted: Callable[[str], bool]
    ) -> Iterator[tuple[str, Any]]:
        """Topic and message of everything that is always sent or `wanted`."""
        encoder, header = self._encoder, self._encoder.header(result.frame)
        if self._told != result.prompts:
            self._told = result.prompts
            yield "label_info", encoder.label_info(header, result.prompts)
        yield "detections", encoder.detections(header, result)
        makers: dict[str, Callable[[FrameResult], NDArray[Any]]] = {
            "label_image": encoder.class_map,
            "instance_image": encoder.instance_map,
            "overlay": _overlay,
        }
        for name, make in makers.items():
            raw, packed = wanted(name), wanted(f"{name}/compressed")
            if not (raw or packed):
                continue
            pixels = make(result)
            if raw:
                yield name, encoder.image(header, pixels)
            if packed:
                yield f"{name}/compressed", encoder.compressed(header, pixels)
