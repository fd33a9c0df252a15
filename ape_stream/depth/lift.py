"""Instances with depth to boxes in space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.depth.box import Box3D, BoxKind, around, check_kind
from ape_stream.depth.surface import surface
from ape_stream.masks.ops import area
from ape_stream.values.depth import Depth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.values.camera import Camera
    from ape_stream.values.instances import Instances, Mask
    from ape_stream.values.transform import Transform

__all__ = ["as_depth", "lift"]

_GRID: Final = 64
"""Depth values that are looked at for each object: at most this many across, squared."""
_SAMPLES: Final = 256
"""At least this many of them are inside its mask, if it has so many pixels."""


def lift(
    instances: Instances,
    depth: NDArray[Any] | Depth,
    camera: Camera | None = None,
    *,
    boxes: BoxKind = "oriented",
    to: Transform | None = None,
) -> tuple[Box3D | None, ...]:
    """A box in metres around the visible side of each instance.

    Depth values at the edge of a mask count only where they agree with the object's surface, so
    nothing of the background is inside the box.

    Args:
        instances: What was found in an image of the camera.
        depth: (h, w) float32 metres or uint16 millimetres, registered to the camera; it covers its
            image, perhaps in another resolution. Or a `Depth`, which knows its camera.
        camera: The camera of the image.
        boxes: "oriented": turned to fit. "axis_aligned": along the axes of the coordinate frame.
        to: From the camera's frame to that of the boxes; None leaves them in the camera's (x right,
            y down, z forward).

    Returns:
        N boxes in the order of the instances; None where a mask holds too little depth, and for
        regions without masks: what a box holds is not all of the object.

    Raises:
        ValueError: the depth is not of this camera, or the instances are of another image size.
    """
    check_kind(boxes)
    depth = as_depth(depth, camera, instances.size)
    if instances.masks is None:
        return (None,) * len(instances)
    return tuple(_box(mask, depth, boxes, to) for mask in instances.masks)


def as_depth(depth: NDArray[Any] | Depth, camera: Camera | None, size: tuple[int, int]) -> Depth:
    """The depth of an image of this height and width.

    Raises:
        ValueError: there is no camera, or depth and image differ in shape.
    """
    if not isinstance(depth, Depth):
        if camera is None:
            raise ValueError("give the camera of the depth image")
        depth = Depth(depth, camera)
    if depth.camera.size != size:
        depth = Depth(depth.values, depth.camera.resized(size))
    return depth


def _box(mask: Mask, depth: Depth, kind: BoxKind, to: Transform | None) -> Box3D | None:
    found = surface(mask, depth, _step(mask, depth))
    if found is None:
        return None
    places = np.flatnonzero(found.keep)
    points = found.points(depth.camera, found.smooth, places)
    if to is not None:
        points = to(points.T).T
    center, size, axes = around(points, kind, _outline(places, found.keep.shape))
    # Points are the centres of pixels: the outer half of the outermost ones is missing.
    side = found.step * found.distance
    pixel = np.array([side / depth.camera.fx, side / depth.camera.fy, 0.0])
    turned = axes.T if to is None else axes.T @ to.rotation
    size += np.abs(turned) @ pixel
    return Box3D(center, size, axes, found.distance, found.spread, points.shape[1])


def _outline(places: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Which of P pixels are the first or the last of their row; -1 stands for 0, P for P - 1.

    All corners of the outline are among them, however many pixels inside are missing.

    Args:
        places: (P,) places of pixels in an array of this shape, flattened; in ascending order.
        shape: (h, w).
    """
    height, width = shape
    cuts = places.searchsorted(np.arange(0, height * width + 1, width))
    # Of an empty row these are pixels of its neighbours, or one before or behind all.
    return np.concatenate([cuts[:-1], cuts[1:] - 1])


def _step(mask: Mask, depth: Depth) -> int:
    """Every how many pixels of the image depth is looked up."""
    h, w = mask.bitmap.shape
    step = math.ceil(math.sqrt(h * w) / _GRID)
    # Something long and thin fills little of its box.
    step = min(step, int(math.sqrt(area(mask) / _SAMPLES)))
    return max(1, step, int(depth.camera.size[0] // depth.values.shape[0]))
