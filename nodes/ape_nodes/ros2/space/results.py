"""Results in three dimensions as messages: boxes, points and markers for RViz."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_nodes.ros2.messages import RosFrame
from ape_nodes.ros2.space.tf import Patience, TransformError, TransformTree
from ape_stream.depth import Box3D, cloud, lift, quaternion
from ape_stream.draw import colours_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ape_nodes.ros2.encoder import Encoder
    from ape_stream.depth import Depth, Transform
    from ape_stream.depth.box import BoxKind
    from ape_stream.types import FrameResult

__all__ = ["SPACE_TOPICS", "Placement", "SpaceMessages"]

SPACE_TOPICS: Final = ("detections_3d", "points", "aligned_points", "markers")
"""Outputs that need depth; there is no message for a frame without."""
_CUBE, _TEXT = 1, 9
_ADD, _DELETE_ALL = 0, 3
_MARKER_S: Final = 2
"""Markers vanish after this time when no more results come."""
_UINT8, _UINT16, _UINT32, _FLOAT32 = 2, 4, 6, 7
_POINT: Final = np.dtype(
    {
        "names": ["xyz", "rgb", "label", "instance", "score"],
        "formats": [("<f4", 3), "<u4", "<u2", "<u2", "<f4"],
        "offsets": [0, 12, 16, 18, 20],
        "itemsize": 24,
    }
)
_POINT_FIELDS: Final = (
    ("x", 0, _FLOAT32), ("y", 4, _FLOAT32), ("z", 8, _FLOAT32), ("rgb", 12, _FLOAT32),
    ("label", 16, _UINT16), ("instance", 18, _UINT16), ("score", 20, _FLOAT32),
)  # fmt: skip
"""PCL and RViz read `rgb` as a float whose bits are 0x00RRGGBB."""


@dataclass(slots=True)
class Placement:
    """How results are made three-dimensional, and in which coordinate frame they are sent."""

    boxes: BoxKind = "oriented"
    """Kind of the boxes."""
    voxel_m: float = 0.0
    """Side of the cubes of which one point is sent, metres; 0 sends all."""
    target_frame: str = ""
    """The frame of the results; empty: that of the image."""
    transforms: TransformTree = field(default_factory=TransformTree)
    """Where the way to the target frame is looked up."""
    problem: str = ""
    """Why the last result is not in the target frame; empty if it is."""
    patience: Patience = field(default_factory=Patience)
    """Whether the next result waits for its transform."""

    def of(self, frame: Any) -> tuple[Transform | None, str]:
        """The transform to the target frame and its name; without one the image's own frame."""
        own = frame.frame_id if isinstance(frame, RosFrame) else frame.stream
        if self.target_frame in ("", own):
            return None, own
        stamp_ns = frame.stamp_ns if isinstance(frame, RosFrame) else round(frame.time_s * 1e9)
        try:
            found = self.transforms.look_up(self.target_frame, own, stamp_ns, self.patience)
        except TransformError as error:
            self.problem = f"results stay in {own!r}: {error}"
            return None, own
        self.problem = ""
        return found, self.target_frame


class SpaceMessages:
    """The messages of one result that need depth; boxes are made once for all of them.

    Args:
        encoder: Builds the plain parts.
        result: Its frame has depth.
        placement: Where and how.
    """

    def __init__(self, encoder: Encoder, result: FrameResult, placement: Placement) -> None:
        self._encoder = encoder
        self._class = encoder.message_class
        self._result = result
        self._placement = placement
        self._to, frame_id = placement.of(result.frame)
        plain = encoder.header(result.frame)
        self._header = self._class("std_msgs/msg/Header")(stamp=plain.stamp, frame_id=frame_id)
        self._optical = plain
        self._boxes: tuple[Box3D | None, ...] | None = None

    def message(self, topic: str) -> Any:
        """The message for one of `SPACE_TOPICS`."""
        made: dict[str, Callable[[], Any]] = {
            "detections_3d": self._detections,
            "points": self._points,
            "aligned_points": self._aligned,
            "markers": self._markers,
        }
        return made[topic]()

    @property
    def boxes(self) -> tuple[Box3D | None, ...]:
        """A box for each instance with depth, in the target frame."""
        if self._boxes is None:
            self._boxes = lift(
                self._result.instances, self._depth, boxes=self._placement.boxes, to=self._to
            )
        return self._boxes

    @property
    def _depth(self) -> Depth:
        depth = self._result.frame.depth
        if depth is None:
            raise ValueError("the frame has no depth")
        return depth

    def _detections(self) -> Any:
        """Those of `detections` that have depth, in the same order, with the same ids."""
        found = [self._detection(k, box) for k, box in enumerate(self.boxes) if box is not None]
        array = self._class("vision_msgs/msg/Detection3DArray")
        return array(header=self._header, detections=found)

    def _detection(self, k: int, box: Box3D) -> Any:
        pose = self._pose(box)
        boxed = self._class("vision_msgs/msg/BoundingBox3D")(
            center=pose, size=self._vector(box.size)
        )
        return self._class("vision_msgs/msg/Detection3D")(
            header=self._header,
            results=[self._encoder.hypothesis(self._result, k, pose)],
            bbox=boxed,
            id=self._encoder.track_id(self._result, k),
        )

    def _pose(self, box: Box3D) -> Any:
        x, y, z, w = quaternion(box.rotation)
        return self._class("geometry_msgs/msg/Pose")(
            position=self._point(box.center),
            orientation=self._class("geometry_msgs/msg/Quaternion")(x=x, y=y, z=z, w=w),
        )

    def _point(self, at: NDArray[np.float64]) -> Any:
        x, y, z = at.tolist()
        return self._class("geometry_msgs/msg/Point")(x=x, y=y, z=z)

    def _vector(self, size: NDArray[np.float64]) -> Any:
        x, y, z = size.tolist()
        return self._class("geometry_msgs/msg/Vector3")(x=x, y=y, z=z)

    # -- points ----------------------------------------------------------------------------

    def _points(self) -> Any:
        """The masked points, unorganised, with what they belong to."""
        frame = self._result.frame
        found = cloud(
            self._result.instances, self._depth, image=frame.image,
            voxel_m=self._placement.voxel_m, to=self._to,
        )  # fmt: skip
        packed = np.zeros(len(found), _POINT)
        packed["xyz"] = found.points
        blue, green, red = (found.colors[:, k].astype(np.uint32) for k in range(3))
        packed["rgb"] = red << 16 | green << 8 | blue
        packed["label"], packed["instance"] = found.labels, found.instances
        packed["score"] = found.scores
        return self._cloud(self._header, packed[None], _POINT_FIELDS, dense=True)

    def _aligned(self) -> Any:
        """x, y, z of every pixel of the maps, in the frame of the image; NaN where there is none.

        Organised: row and column of a point are those of `label_image`.
        """
        height, width = self._result.instances.size
        depth = self._depth
        z = depth.metres()
        z[z == 0] = np.nan
        x, y = depth.camera.resized((height, width)).rays(np.arange(height), np.arange(width))
        xyz = np.stack([x * z, y * z, z], -1).astype("<f4")
        packed = xyz.view(np.dtype([("xyz", "<f4", 3)]))[..., 0]
        return self._cloud(self._optical, packed, _POINT_FIELDS[:3], dense=False)

    def _cloud(
        self, header: Any, packed: NDArray[Any], fields: tuple[Any, ...], *, dense: bool
    ) -> Any:
        field = self._class("sensor_msgs/msg/PointField")
        height, width = packed.shape
        raw = np.ascontiguousarray(packed).reshape(-1).view(np.uint8)
        return self._class("sensor_msgs/msg/PointCloud2")(
            header=header,
            height=height,
            width=width,
            fields=[field(name=n, offset=o, datatype=kind, count=1) for n, o, kind in fields],
            is_bigendian=False,
            point_step=packed.itemsize,
            row_step=packed.itemsize * width,
            data=self._encoder.bytes_field(raw.data),
            is_dense=dense,
        )

    # -- markers ---------------------------------------------------------------------------

    def _markers(self) -> Any:
        """A cube and a name for each box; those of the result before are deleted first."""
        found = [self._marker(0, _CUBE, _DELETE_ALL)]
        for k, box in enumerate(self.boxes):
            if box is not None:
                found += self._shown(k, box)
        return self._class("visualization_msgs/msg/MarkerArray")(markers=found)

    def _shown(self, k: int, box: Box3D) -> list[Any]:
        instances = self._result.instances
        blue, green, red = colours_of(instances)[k].tolist()
        color = self._class("std_msgs/msg/ColorRGBA")
        cube = self._marker(2 * k, _CUBE, _ADD)
        cube.pose = self._pose(box)
        # RViz warns of sides of 0, which flat things have.
        cube.scale = self._vector(np.maximum(box.size, 0.001))
        cube.color = color(r=red / 255, g=green / 255, b=blue / 255, a=0.5)
        name = self._marker(2 * k + 1, _TEXT, _ADD)
        name.pose = self._pose(box)
        name.scale = self._vector(np.full(3, max(0.03, 0.2 * float(box.size.max()))))
        name.color = color(r=1.0, g=1.0, b=1.0, a=1.0)
        text = self._result.prompts[int(instances.prompt_ids[k])].text
        track = self._encoder.track_id(self._result, k)
        name.text = " ".join(filter(None, [text, track, f"{box.distance:.2f} m"]))
        return [cube, name]

    def _marker(self, number: int, kind: int, action: int) -> Any:
        return self._encoder.blank(
            "visualization_msgs/msg/Marker",
            header=self._header, ns="ape", id=number, type=kind, action=action,
            lifetime=self._class("builtin_interfaces/msg/Duration")(sec=_MARKER_S, nanosec=0),
        )  # fmt: skip
