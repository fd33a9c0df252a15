"""Which depth values inside a mask belong to its object, and their smoothed depth.

A mask's edge is a few pixels off, and stereo and time-of-flight cameras see between the object and
what is behind it there. So the object's surface is learned from the eroded mask: median and MAD
drop what lies elsewhere, a plane in inverse depth (which is linear over the pixels of a plane) and
local means of what is left give the surface. A pixel of the rim is kept where its own depth agrees
with the surface carried on to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from ape_stream.masks.ops import window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.values.depth import Depth
    from ape_stream.values.instances import Mask

__all__ = ["Surface", "surface"]

_SIGMA: Final = 1.4826
"""Standard deviation of normal noise for a median absolute deviation of 1."""
_SIGMAS: Final = 3.0
"""Values further out are not of the object."""
_LEAST: Final = 8
"""Depth values without which nothing is said."""
_SAMPLED: Final = 512
"""Values from which medians and planes are computed: the error is a twentieth of the noise."""
_RESOLUTION: Final = 0.01
"""Relative differences of depth below this are never taken for an edge."""
_CURVED: Final = 0.04
"""Relative difference from its neighbourhood up to which a pixel inside the mask is kept."""
_ERODED: Final = 0.03
"""Width of the rim, of the square root of the area."""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """The pixels of one object with their depth, on a grid of every `step`-th pixel."""

    rows: NDArray[np.intp]
    """(h,) rows of the grid in the image."""
    columns: NDArray[np.intp]
    """(w,) columns of the grid in the image."""
    step: int
    """Pixels from one grid point to the next."""
    keep: NDArray[np.bool_]
    """(h, w) bool: the pixels that belong to the object."""
    smooth: NDArray[np.float32]
    """(h, w) float32 metres, noise averaged; valid where `keep`."""
    raw: NDArray[np.float32]
    """(h, w) float32 metres as measured; valid where `keep`."""
    distance: float
    """Median of the eroded mask, metres."""
    spread: float
    """Median absolute deviation from it, metres."""


def surface(mask: Mask, depth: Depth, step: int) -> Surface | None:
    """The surface of a mask's object; None where there is too little depth.

    Args:
        mask: Inside the image.
        depth: Of the image.
        step: Every how many pixels depth is looked up, at least 1.

    Raises:
        ValueError: the mask does not fit into the image.
    """
    window(mask, depth.camera.size)
    h, w = mask.bitmap.shape
    # The middle pixel of each step, so that the grid lies evenly inside the mask.
    ys, xs = np.arange(step // 2, h, step), np.arange(step // 2, w, step)
    inside = mask.bitmap[np.ix_(ys, xs)]
    rows, columns = ys + mask.y, xs + mask.x
    raw = depth.metres(rows, columns)
    valid = inside & (raw > 0)
    core, rim = _core(inside, valid)
    values = _some(raw[core])
    if len(values) < _LEAST:
        return None
    distance = _median(values)
    spread = _median(np.abs(values - np.float32(distance)))
    # An object may be about as deep as it is wide, however flat most of it is.
    width = np.sqrt(np.count_nonzero(inside)) * step * distance / depth.camera.fx
    reach = max(_SIGMAS * _SIGMA * spread, 0.5 * width, _RESOLUTION * distance)
    near = valid & (np.abs(raw - distance) <= reach)
    smooth, keep = _followed(raw, core & near, near, rim)
    if np.count_nonzero(keep) < _LEAST:
        return None
    return Surface(rows, columns, step, keep, smooth, raw, distance, spread)


def _some(values: NDArray[Any]) -> NDArray[Any]:
    return values[:: max(1, len(values) // _SAMPLED)]


def _median(values: NDArray[Any]) -> float:
    """The upper median: np.median costs five times as much for so few values."""
    middle = len(values) // 2
    return float(np.partition(values, middle)[middle])


def _core(inside: NDArray[np.bool_], valid: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """The valid pixels of the eroded mask, and by how many it was eroded."""
    count = np.count_nonzero(inside)
    rim = max(1, round(_ERODED * np.sqrt(count)))
    bytes_ = np.ascontiguousarray(inside).view(np.uint8)
    while rim:
        kernel = np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)
        # What is outside the crop is outside the mask.
        eroded = cv2.erode(bytes_, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        core = eroded.view(np.bool_) & valid
        # Something thin, like a fork, may be all rim.
        if np.count_nonzero(core) >= max(_LEAST, 0.2 * count):
            return core, rim
        rim //= 2
    return valid, 1


def _followed(
    raw: NDArray[np.float32], core: NDArray[np.bool_], valid: NDArray[np.bool_], rim: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The smoothed surface of the core, and where measured depth agrees with it: both (h, w)."""
    inverse = valid.astype(np.float32)  # 1 / metres, 0 where there is none
    inverse /= np.where(valid, raw, np.float32(1))
    flat = _plane(inverse, core)
    # Means over a window that reaches from the outermost pixel of the rim well into the core.
    side = 4 * rim + 1
    counts: NDArray[Any] = cv2.boxFilter(
        core.astype(np.float32), -1, (side, side), borderType=cv2.BORDER_CONSTANT
    )
    rest = np.where(core, inverse - flat, np.float32(0))
    means: NDArray[Any] = cv2.boxFilter(rest, -1, (side, side), borderType=cv2.BORDER_CONSTANT)
    known = counts > 0.5 / side**2  # at least one pixel of the core
    means /= np.maximum(counts, 0.5 / side**2)
    places = _some(np.flatnonzero(core))
    noise = _SIGMA * _median(np.abs(rest - means).ravel()[places]) if len(places) else 0.0
    # Of the means only as much is shape as exceeds what noise alone makes of them: a plane is flat.
    chosen = means.ravel()[places]
    square = float(chosen @ chosen) / max(1, len(places))
    weights = side**2 * counts.ravel()[places]
    chance = 2 * noise**2 * float((1 / weights).mean()) if len(places) else 0.0
    local = flat + means * np.float32(1 - min(1.0, chance / square) if square else 0.0)
    off = np.abs(inverse - local)
    # Relative in inverse depth is relative in depth. The core may be curved; the rim must agree.
    least = np.where(core, np.float32(_CURVED), np.float32(_RESOLUTION)) * np.abs(local)
    keep = valid & known & (off <= np.maximum(_SIGMAS * noise, least))
    return np.reciprocal(np.where(keep, local, np.float32(1))), keep


def _plane(inverse: NDArray[np.float32], core: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(h, w) float32: the plane through the core, in 1 / metres over the pixels."""
    height, width = inverse.shape
    places = _some(np.flatnonzero(core))
    if len(places) < _LEAST:
        return np.zeros_like(inverse)
    ys, xs = np.divmod(places, width)
    values = inverse.ravel()[places].astype(np.float64)
    terms = np.stack([xs, ys, np.ones(len(xs))], -1)  # (S, 3) float64
    weights = np.ones(len(ys))
    # Twice: the second time without what is far from the first plane.
    for _ in range(2):
        weighted = terms.T * weights
        plane = np.linalg.solve(weighted @ terms + 1e-9 * np.eye(3), weighted @ values)
        off = np.abs(values - terms @ plane)
        weights = (off <= _SIGMAS * _SIGMA * _median(off) + 1e-12).astype(np.float64)
    x, y, offset = plane
    across = (x * np.arange(width) + offset).astype(np.float32)
    down = (y * np.arange(height)).astype(np.float32)
    flat: NDArray[np.float32] = down[:, None] + across[None, :]
    return flat
