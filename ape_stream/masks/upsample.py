"""From what a network makes, low-resolution logits or packed bits, to masks of the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from ape_stream.masks.interpolation import axis, lerp
from ape_stream.masks.ops import crop, empty
from ape_stream.values.instances import Mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.masks.interpolation import Axis

__all__ = ["from_bits", "from_logits"]

_BAND = 2**14
"""Pixels upsampled at a time: few enough that they stay in a core's cache."""


def from_logits(
    logits: NDArray[np.float32],
    size: tuple[int, int],
    filled: tuple[float, float] | None = None,
    threshold: float = 0.0,
) -> Mask:
    """Upsample a low-resolution logit map to the frame, threshold it, and cut it.

    The map covers the network's canvas, on which the resized frame fills the top left `filled`
    part and padding the rest. Frame pixel i of n reads the map at (i + 0.5) * filled / n - 0.5,
    clamped to the map, by ONE bilinear interpolation. That is the convention align_corners=False:
    equal to ``F.interpolate(logits, scale_factor=n / filled, mode="bilinear",
    recompute_scale_factor=False)`` cut to the frame, and with a frame that fills its canvas to
    ``F.interpolate(logits, size)``. (Two steps, map to canvas and canvas to frame, would blur
    twice.) Columns are interpolated before rows, every product and sum is rounded to float32: so
    does `mask_pack` on a GPU, whose masks are the same to the pixel. Only the extent of the mask
    is computed: a bilinear value is at most the largest of its four neighbours, so no pixel
    further than one map cell from a cell above the threshold can be above it.

    Args:
        logits: (h, w) float32, finite.
        size: height and width of the frame, pixels, at least 1.
        filled: rows and columns of the map that the frame fills, each in (0, h] and (0, w], may
            be fractional (a frame resized to 683 rows at stride 4 fills 170.75); None = all.
        threshold: true where the logit is greater; 0 means a probability above one half.

    Raises:
        ValueError: `filled` is not inside the map.
    """
    height, width = logits.shape
    filled_rows, filled_cols = filled or (height, width)
    if not (0 < filled_rows <= height and 0 < filled_cols <= width):
        raise ValueError(f"filled {filled} is not inside the map {(height, width)}")
    # Only pixels that read a cell above the threshold can be above it: find the box of such cells
    # in the map, then the pixels of the frame that read it, and upsample no others.
    x, y, w, h = cv2.boundingRect((logits > threshold).view(np.uint8))
    if w == 0:
        return empty()
    rows, cols = axis(size[0], filled_rows, height), axis(size[1], filled_cols, width)
    top, bottom = rows.footprint(y, y + h)
    left, right = cols.footprint(x, x + w)
    if top == bottom or left == right:
        return empty()
    inside = _threshold_upsampled(logits, rows.part(top, bottom), cols.part(left, right), threshold)
    return _shifted(crop(inside), left, top)


def from_bits(words: NDArray[np.int32], width: int) -> Mask:
    """Cut a mask out of packed bits.

    Args:
        words: (H, ceil(W / 32)) int32, little-endian: bit k of word j is pixel 32 j + k of the
            line; no bit beyond W is set.
        width: W of the frame, pixels.

    Raises:
        ValueError: there are not as many words as the width needs.
    """
    if words.shape[1] != -(-width // 32):
        raise ValueError(f"{words.shape[1]} words of 32 pixels do not make a width of {width}")
    rows = np.flatnonzero(words.any(axis=1))
    columns = np.flatnonzero(words.any(axis=0))
    if len(rows) == 0:
        return empty()
    # Whole words first, then single pixels of the few that are left.
    top, left = int(rows[0]), int(columns[0])
    some = np.ascontiguousarray(words[top : rows[-1] + 1, left : columns[-1] + 1])
    bits = np.unpackbits(some.view(np.uint8), axis=1, bitorder="little")
    return _shifted(crop(bits.view(np.bool_)), 32 * left, top)


def _shifted(mask: Mask, x: int, y: int) -> Mask:
    return Mask(mask.bitmap, mask.x + x, mask.y + y) if mask.bitmap.size else mask


def _threshold_upsampled(
    logits: NDArray[np.float32], rows: Axis, cols: Axis, threshold: float
) -> NDArray[np.bool_]:
    """Where the map, read at some rows and columns of the frame, is above the threshold.

    Columns come first, because the map has few rows; then rows, one band of them at a time, so
    that a band's intermediate values stay in the cache.
    """
    first, last = int(rows.lower[0]), int(rows.upper[-1]) + 1
    part = logits[first:last]  # (r, w)
    wide = lerp(part.take(cols.lower, 1), part.take(cols.upper, 1), cols.share)  # (r, W)
    out = np.empty((len(rows.lower), len(cols.lower)), np.bool_)
    step = max(1, _BAND // out.shape[1])
    for start in range(0, len(out), step):
        band = rows.part(start, start + step)
        before, after = wide.take(band.lower - first, 0), wide.take(band.upper - first, 0)
        values = lerp(before, after, band.share[:, None])  # (step, W)
        np.greater(values, threshold, out=out[start : start + step])
    return out
