"""Depth that comes in messages: calibration, depth images and point clouds, paired with images.

Images and depth are paired by approximate time, one to one: the depth closest to the image's stamp,
within a tight slop. An image waits for its depth until a later depth arrives, more images wait than
`_WAITING`, or the wait is over; it then goes on without.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import numpy as np

from ape_nodes.ros2.images import rows_of
from ape_nodes.ros2.space.compressed_depth import decompressed
from ape_nodes.ros2.space.tf import Patience, TransformError, TransformTree
from ape_stream.depth import Camera, Depth, from_points, registered
from ape_stream.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ape_nodes.ros2.messages import RosFrame
    from ape_stream.depth import Transform

__all__ = [
    "NOT_PAIRED",
    "DepthPairs",
    "DepthReader",
    "camera_of",
    "depth_values",
    "points_of",
    "stamp_ns_of",
]

_WAITING: Final = 4
"""Images or depth messages that wait for their partner."""
NOT_PAIRED: Final = "no depth within the slop"
"""`DepthReader.problem` of an image that no depth belongs to."""
_LONGEST_S: Final = 1.0
"""Longest wait of an image for its depth: a depth sensor may fall silent."""
_DEPTH_ENCODINGS: Final = {"16uc1": np.uint16, "mono16": np.uint16, "32fc1": np.float32}
"""Encoding of a depth image, small letters -> type of a value: millimetres or metres (REP 118)."""

T = TypeVar("T")


def stamp_ns_of(message: Any) -> int:
    """header.stamp in nanoseconds."""
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def camera_of(info: Any, *, rectified: bool = False) -> Camera:
    """The camera of a sensor_msgs/CameraInfo, with its region of interest and binning.

    Args:
        info: The message of any backend.
        rectified: The images are rectified: P holds, and there is no distortion.

    Raises:
        SourceError: it is not calibrated, or its distortion is unknown.
    """
    p = [float(value) for value in info.p]
    k = [p[0], 0, p[2], 0, p[5], p[6], 0, 0, 1] if rectified else [float(v) for v in info.k]
    roi = info.roi
    try:
        return Camera.calibrated(
            (int(info.height), int(info.width)),
            k,
            () if rectified else [float(v) for v in info.d],
            info.distortion_model,
            roi=(roi.x_offset, roi.y_offset, roi.width, roi.height),
            binning=(info.binning_x, info.binning_y),
        )
    except ValueError as error:
        raise SourceError(f"the camera info cannot be used: {error}") from error


def depth_values(message: Any) -> NDArray[Any]:
    """The values of a depth image: (H, W) uint16 millimetres or float32 metres, by its encoding.

    Raises:
        SourceError: it is no depth image, or its sizes are impossible.
    """
    dtype = _DEPTH_ENCODINGS.get(message.encoding.lower())
    if dtype is None:
        raise SourceError(f"depth encoding {message.encoding!r} is none of 16UC1, 32FC1")
    size = np.dtype(dtype).itemsize
    rows = rows_of(message, int(message.width) * size)
    stored = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    return np.ascontiguousarray(rows).view(stored).astype(dtype, copy=False)


def points_of(message: Any) -> NDArray[np.float32]:
    """x, y, z of a sensor_msgs/PointCloud2: (height, width, 3) float32 metres.

    Raises:
        SourceError: it has no such fields of 32-bit floats, or too few bytes.
    """
    float32 = 7
    offsets = {one.name: int(one.offset) for one in message.fields if one.datatype == float32}
    if not {"x", "y", "z"} <= offsets.keys():
        raise SourceError("a point cloud without x, y and z as 32-bit floats cannot be used")
    height, width, step = int(message.height), int(message.width), int(message.point_step)
    data, row = np.frombuffer(message.data, np.uint8), int(message.row_step)
    if not height * width:
        return np.zeros((height, width, 3), np.float32)
    last = max(offsets[name] for name in "xyz") + 4
    if step < last or row < step * width or data.size < row * (height - 1) + step * width:
        raise SourceError(
            f"a point cloud of {width}x{height} has steps {step}, {row} and {data.size} bytes"
        )
    layout = np.dtype(
        {
            "names": ["x", "y", "z"],
            "formats": [">f4" if message.is_bigendian else "<f4"] * 3,
            "offsets": [offsets[name] for name in "xyz"],
            "itemsize": step,
        }
    )
    items = np.ndarray((height, width), layout, data, strides=(row, step))
    return np.stack([items[name] for name in "xyz"], -1).astype(np.float32, copy=False)


class DepthPairs(Generic[T]):
    """Pairs images with depth messages of almost the same stamp.

    Args:
        slop_ns: Largest difference of the stamps.
    """

    def __init__(self, slop_ns: int) -> None:
        self.slop_ns = slop_ns
        self.paired = 0
        """Images that found their depth."""
        self.unpaired = 0
        """Images that went on without."""
        self.apart_ns: int | None = None
        """How far apart the stamps of the last image and of its closest depth were."""
        self._images: deque[tuple[int, T, float]] = deque()  # stamp, image, when it came
        self._depths: deque[tuple[int, Any]] = deque(maxlen=_WAITING)

    def add_image(self, stamp_ns: int, image: T) -> Iterator[tuple[T, Any | None]]:
        """Take an image; yields images that are settled, each with its depth or None."""
        if self._images and stamp_ns < self._images[-1][0]:  # a bag begins again
            self._depths.clear()
            yield from self._flushed()
        self._images.append((stamp_ns, image, time.monotonic()))
        yield from self._settled()

    def add_depth(self, stamp_ns: int, message: Any) -> Iterator[tuple[T, Any | None]]:
        """Take a depth message; yields as `add_image`."""
        if self._depths and stamp_ns < self._depths[-1][0]:
            self._depths.clear()
        self._depths.append((stamp_ns, message))
        yield from self._settled()

    def overdue(self) -> Iterator[tuple[T, Any | None]]:
        """Yields images that have waited for a second; a live stream asks now and then."""
        came_s = time.monotonic() - _LONGEST_S
        while self._images and self._images[0][2] <= came_s:
            yield self._settle()

    def end(self) -> Iterator[tuple[T, Any | None]]:
        """No more comes: every image that waits is settled with what is there."""
        while self._images:
            yield self._settle()

    def _flushed(self) -> Iterator[tuple[T, Any | None]]:
        while self._images:
            self.unpaired += 1
            yield self._images.popleft()[1], None

    def _settled(self) -> Iterator[tuple[T, Any | None]]:
        while self._images and (len(self._images) > _WAITING or self._is_settled()):
            yield self._settle()

    def _is_settled(self) -> bool:
        """Whether no depth that is closer to the first image can follow, or need follow."""
        if not self._depths:
            return False
        before_ns = self._images[0][0] - self._depths[-1][0]
        return before_ns <= self.slop_ns / 4

    def _settle(self) -> tuple[T, Any | None]:
        stamp_ns, image, _ = self._images.popleft()
        closest = min(self._depths, key=lambda one: abs(one[0] - stamp_ns), default=None)
        self.apart_ns = None if closest is None else abs(closest[0] - stamp_ns)
        if closest is None or abs(closest[0] - stamp_ns) > self.slop_ns:
            self.unpaired += 1
            return image, None
        # One to one: this depth and older ones belong to no later image.
        while self._depths and self._depths[0][0] <= closest[0]:
            self._depths.popleft()
        self.paired += 1
        return image, closest[1]


class DepthReader:
    """Gives frames the depth of a message, as the frame's camera sees it.

    Args:
        transforms: Extrinsics of depth that is not in the camera's frame.
        rectified: The images are rectified.
        live: Transforms may still be on their way, and are waited for.
    """

    def __init__(
        self, transforms: TransformTree, *, rectified: bool = False, live: bool = True
    ) -> None:
        self.problem = "no camera info has come"
        """Why the last frame got no depth; empty if it did."""
        self._transforms = transforms
        self._rectified = rectified
        self._patience = Patience() if live else None
        self._cameras: dict[str, tuple[Any, Camera]] = {}

    def take_info(self, info: Any, role: str = "image") -> None:
        """Take a CameraInfo of the image, or with role "depth" that of the depth image.

        Raises:
            SourceError: see `camera_of`.
        """
        key = (
            info.height, info.width, tuple(info.k), tuple(info.p), tuple(info.d),
            info.distortion_model, info.binning_x, info.binning_y,
            info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height,
        )  # fmt: skip
        # It comes with every image, and what is computed from it once is kept.
        if role not in self._cameras or self._cameras[role][0] != key:
            self._cameras[role] = key, camera_of(info, rectified=self._rectified)
            self.problem = ""

    def with_depth(self, frame: RosFrame, message: Any | None) -> RosFrame:
        """The frame with the depth of a message, or as it is: `problem`.

        Args:
            frame: The image.
            message: An Image, a CompressedImage of compressedDepth, or a PointCloud2.
        """
        if message is None:
            self.problem = NOT_PAIRED
            return frame
        try:
            depth = self._depth(frame, message)
        except (SourceError, TransformError, ValueError) as error:
            self.problem = str(error)
            return frame
        self.problem = ""
        return replace(frame, depth=depth)

    def _depth(self, frame: RosFrame, message: Any) -> Depth:
        if "image" not in self._cameras:
            raise SourceError("no camera info has come")
        camera = self._cameras["image"][1].resized(frame.size)
        own, other = frame.frame_id, message.header.frame_id
        same = other in ("", own)
        if not hasattr(message, "fields"):
            compressed = hasattr(message, "format")
            values = decompressed(message) if compressed else depth_values(message)
            if same:
                return Depth(values, camera)
            if "depth" not in self._cameras:
                raise SourceError(
                    f"depth is in the frame {other!r}, images in {own!r}: publish the depth"
                    " camera's info, or depth that is registered to the image"
                )
            extrinsics = self._extrinsics(frame, other)
            return registered(values, self._cameras["depth"][1], camera, extrinsics)
        to_camera = None if same else self._extrinsics(frame, other)
        points = points_of(message)
        height, width = points.shape[:2]
        # An organised cloud of the camera itself is a depth image already.
        if same and height > 1 and abs(height * frame.size[1] / (width * frame.size[0]) - 1) < 0.02:
            return Depth(np.ascontiguousarray(points[..., 2]), camera)
        return from_points(points, camera, to_camera)

    def _extrinsics(self, frame: RosFrame, other: str) -> Transform:
        """From the frame of the depth to that of the image, at the image's stamp."""
        return self._transforms.look_up(frame.frame_id, other, frame.stamp_ns, self._patience)
