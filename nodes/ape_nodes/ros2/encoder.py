"""Results to ROS 2 messages, once for every backend.

`Encoder` is given the message classes of its backend: rosbags' (dds, bags) or ROS's own (rclpy).
Both are constructed from keyword arguments, so the messages are built in one file only.
"""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_nodes.ros2.images import to_jpeg, to_png
from ape_nodes.ros2.messages import RosFrame
from ape_stream.errors import ConfigError
from ape_stream.masks import label_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ape_nodes.ros2.diagnostics import Health
    from ape_stream.types import Frame, FrameResult, PromptSet

__all__ = ["MONO8_LARGEST", "Encoder", "byte_array"]

MONO8_LARGEST: Final = 254
"""In vision_msgs/LabelInfo, 255 of 8 bits is a pixel without a label."""


def byte_array(data: bytes | memoryview) -> array.array[int]:
    """Bytes as rclpy takes them fast: a numpy array there costs 1,142 ms a 1080p frame."""
    made = array.array("B")
    made.frombytes(data)
    return made


class Encoder:
    """Builds messages.

    Args:
        message_class: The class of a ROS 2 type by its name ("std_msgs/msg/Header").
        to_bytes_field: How this backend wants the bytes of a `uint8[]`.
        mask_encoding: "mono16", or "mono8" to use 8 bits where all values fit.
        make_blank: A message of a ROS 2 type with every field empty; None: the class does that.

    Raises:
        ConfigError: there is no such mask encoding.
    """

    def __init__(
        self,
        message_class: Callable[[str], type],
        to_bytes_field: Callable[[bytes | memoryview], Any],
        mask_encoding: str = "mono16",
        make_blank: Callable[[str], Any] | None = None,
    ) -> None:
        if mask_encoding not in ("mono8", "mono16"):
            raise ConfigError(f"mask_encoding={mask_encoding!r} is none of mono8, mono16")
        self.message_class = self._class = message_class
        self.bytes_field = self._to_bytes_field = to_bytes_field
        self._mask_encoding = mask_encoding
        self._make_blank = make_blank
        self.model_threshold = 0.0
        """Lowest score that the model keeps for prompts without a threshold; 0 = not known."""

    def blank(self, name: str, **fields: Any) -> Any:
        """A message of a ROS 2 type with these fields; all others are 0, false or empty."""
        message = self._class(name)() if self._make_blank is None else self._make_blank(name)
        for field, value in fields.items():
            setattr(message, field, value)
        return message

    def header(self, frame: Frame) -> Any:
        """The header of this frame; a frame that came from ROS keeps its own."""
        if isinstance(frame, RosFrame):
            return self._header(frame.stamp_ns, frame.frame_id)
        return self._header(max(0, round(frame.time_s * 1e9)), frame.stream)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        # divmod also rounds down below 0, as Time wants it: nanosec is never negative.
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        stamp = self._class("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)
        return self._class("std_msgs/msg/Header")(stamp=stamp, frame_id=frame_id)

    def image(self, header: Any, pixels: NDArray[Any]) -> Any:
        """An Image: bgr8 of (H, W, 3) uint8; mono8 or mono16 (little endian) of (H, W).

        The message may refer to `pixels` instead of a copy: send it before they change.
        """
        encoding = "bgr8" if pixels.ndim == 3 else f"mono{8 * pixels.itemsize}"
        # Little endian on every machine, as is_bigendian says; not copied where it already is.
        raw = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
        return self._class("sensor_msgs/msg/Image")(
            header=header,
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=raw.strides[0],
            data=self._to_bytes_field(raw.reshape(-1).view(np.uint8).data),
        )

    def compressed(self, header: Any, pixels: NDArray[Any]) -> Any:
        """A CompressedImage: PNG of a map, JPEG of an image.

        `format` is written as compressed_image_transport writes it.
        """
        if pixels.ndim == 3:
            encoding, data = "bgr8; jpeg compressed bgr8", to_jpeg(pixels)
        else:
            encoding, data = f"mono{8 * pixels.itemsize}; png compressed ", to_png(pixels)
        compressed = self._class("sensor_msgs/msg/CompressedImage")
        return compressed(header=header, format=encoding, data=self._to_bytes_field(data))

    def label_info(self, header: Any, prompts: PromptSet) -> Any:
        """A LabelInfo: class k is prompt k-1; the threshold is the lowest in force."""
        vision_class = self._class("vision_msgs/msg/VisionClass")
        classes = [vision_class(class_id=k, class_name=p.text) for k, p in enumerate(prompts, 1)]
        own = self.model_threshold
        threshold = min((own if p.threshold is None else p.threshold for p in prompts), default=own)
        return self._class("vision_msgs/msg/LabelInfo")(
            header=header, class_map=classes, threshold=float(threshold)
        )

    def detections(self, header: Any, result: FrameResult) -> Any:
        """A Detection2DArray: one Detection2D per instance, in the order of `instance_image`."""
        found = [self._detection(header, result, k) for k in range(len(result.instances))]
        return self._class("vision_msgs/msg/Detection2DArray")(header=header, detections=found)

    def _detection(self, header: Any, result: FrameResult, k: int) -> Any:
        return self._class("vision_msgs/msg/Detection2D")(
            header=header,
            results=[self.hypothesis(result, k, self._identity_pose())],
            bbox=self._box(*result.instances.boxes[k].tolist()),
            id=self.track_id(result, k),
        )

    def hypothesis(self, result: FrameResult, k: int, pose: Any) -> Any:
        """An ObjectHypothesisWithPose of the k-th instance: the phrase and its score."""
        found = result.instances
        hypothesis = self._class("vision_msgs/msg/ObjectHypothesis")(
            class_id=result.prompts[int(found.prompt_ids[k])].text, score=float(found.scores[k])
        )
        with_covariance = self._class("geometry_msgs/msg/PoseWithCovariance")(
            pose=pose, covariance=np.zeros(36)
        )
        return self._class("vision_msgs/msg/ObjectHypothesisWithPose")(
            hypothesis=hypothesis, pose=with_covariance
        )

    def track_id(self, result: FrameResult, k: int) -> str:
        """The track of the k-th instance; empty for a region that is not confirmed yet."""
        ids = result.instances.track_ids
        track = 0 if ids is None else int(ids[k])
        return str(track) if track else ""

    def _box(self, x1: float, y1: float, x2: float, y2: float) -> Any:
        middle = self._class("vision_msgs/msg/Point2D")(x=(x1 + x2) / 2, y=(y1 + y2) / 2)
        center = self._class("vision_msgs/msg/Pose2D")(position=middle, theta=0.0)
        box = self._class("vision_msgs/msg/BoundingBox2D")
        return box(center=center, size_x=x2 - x1, size_y=y2 - y1)

    def _identity_pose(self) -> Any:
        # A hypothesis must have a pose; ours are 2-D, so it is the identity without covariance.
        point = self._class("geometry_msgs/msg/Point")(x=0.0, y=0.0, z=0.0)
        rotation = self._class("geometry_msgs/msg/Quaternion")(x=0.0, y=0.0, z=0.0, w=1.0)
        return self._class("geometry_msgs/msg/Pose")(position=point, orientation=rotation)

    def diagnostics(
        self, stamp_ns: int, name: str, health: Health, values: Mapping[str, Any]
    ) -> Any:
        """A DiagnosticArray with one status; each value as text."""
        pair = self._class("diagnostic_msgs/msg/KeyValue")
        status_class = self._class("diagnostic_msgs/msg/DiagnosticStatus")
        status = status_class(
            level=getattr(status_class, health.level),  # an int in rosbags, one byte in rclpy
            name=name,
            message=health.message,
            hardware_id="",
            values=[pair(key=key, value=str(value)) for key, value in values.items()],
        )
        array_class = self._class("diagnostic_msgs/msg/DiagnosticArray")
        return array_class(header=self._header(stamp_ns, ""), status=[status])

    def class_map(self, result: FrameResult) -> NDArray[Any]:
        """(H, W) map of class ids, 0 = nothing: the semantic map, or masks painted."""
        return self._narrowed(result.label_image(), len(result.prompts))

    def instance_map(self, result: FrameResult) -> NDArray[Any]:
        """(H, W) map of detection numbers from 1, 0 = nothing; small masks over large ones."""
        found = result.instances
        return self._narrowed(
            label_map(found.masks_for("an instance image"), found.size), len(found)
        )

    def confidence_map(self, result: FrameResult) -> NDArray[np.uint8]:
        """(H, W) uint8 map of scores, 255 = 1.0, 0 = nothing; painted as `class_map`."""
        found = result.instances
        values = np.maximum(1, np.rint(255 * found.scores)).astype(int).tolist()
        return label_map(found.masks_for("a confidence image"), found.size, values).astype(np.uint8)

    def _narrowed(self, values: NDArray[np.uint16], largest: int) -> NDArray[Any]:
        if self._mask_encoding == "mono8" and largest <= MONO8_LARGEST:
            return values.astype(np.uint8)
        return values
