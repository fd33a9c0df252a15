"""Depth that another sensor saw, as the camera of the image would have seen it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.values.depth import Depth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.values.camera import Camera
    from ape_stream.values.transform import Transform

__all__ = ["from_points", "registered"]

_COARSEST: Final = 16
"""Largest side in image pixels of one depth value."""


def registered(
    depth: NDArray[Any], depth_camera: Camera, camera: Camera, transform: Transform
) -> Depth:
    """A depth image of one camera as seen by another.

    Args:
        depth: (h, w) float32 metres or uint16 millimetres.
        depth_camera: The camera that saw it.
        camera: The camera of the image.
        transform: From the depth camera's frame to that of the camera.

    Raises:
        ValueError: the depth is not of its camera.
    """
    seen = Depth(depth, depth_camera.resized((depth.shape[0], depth.shape[1])))
    rows, columns = np.arange(depth.shape[0]), np.arange(depth.shape[1])
    z = seen.metres()
    x, y = seen.camera.rays(rows, columns)
    points = np.stack([x * z, y * z, z], -1)[z > 0]  # (P, 3)
    return from_points(points, camera, transform)


def from_points(
    points: NDArray[np.float32], camera: Camera, transform: Transform | None = None
) -> Depth:
    """Points of a lidar or a point cloud as a depth image of a camera; the nearest one is seen.

    Its resolution is as coarse as the points are sparse.

    Args:
        points: (..., 3) float32 metres; points that are not finite are left out.
        camera: The camera of the image.
        transform: From the frame of the points to that of the camera; None: they are in it.
    """
    flat = points.reshape(-1, 3)
    flat = flat[np.isfinite(flat).all(1)]
    if transform is not None:
        flat = transform(flat)
    flat = flat[flat[:, 2] > 0]
    height, width = camera.size
    pixels = np.rint(camera.project(flat)) if len(flat) else np.zeros((0, 2), np.float32)
    inside = (pixels >= 0).all(1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
    xs, ys = pixels[inside].astype(np.intp).T
    z = flat[inside, 2]
    side = _side(len(z), height * width)
    values = np.zeros((math.ceil(height / side), math.ceil(width / side)), np.float32)
    # Where several fall on one value the last one assigned stays: the nearest.
    order = np.argsort(-z, kind="stable")
    rows = ys[order] * values.shape[0] // height
    values[rows, xs[order] * values.shape[1] // width] = z[order]
    return Depth(values, camera)


def _side(points: int, pixels: int) -> int:
    """Side in pixels of a depth value such that one or more points fall on most of them."""
    return min(_COARSEST, max(1, math.ceil(math.sqrt(pixels / max(1, points)))))
