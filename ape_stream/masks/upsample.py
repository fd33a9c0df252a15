"""From what a network makes, low-resolution logits or packed bits, to masks of the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from ape_stream.masks.interpolation import Blocks, axis, cells_around, corners_of, lerp
from ape_stream.masks.ops import crop, empty
from ape_stream.values.instances import Mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_stream.masks.interpolation import Axis

__all__ = ["by_blocks", "every_pixel", "from_bits", "from_logits"]

_BAND = 2**14
"""Pixels upsampled at a time: few enough that they stay in a core's cache."""
_AT_ONCE = 2**16
"""Pixels of blocks computed at a time."""
_ROUNDING = 2.0**-20
"""More than what a mean may be off by rounding, as part of the largest of its cells."""


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
    equal to `F.interpolate(logits, scale_factor=n / filled, mode="bilinear",
    recompute_scale_factor=False)` cut to the frame, and with a frame that fills its canvas to
    `F.interpolate(logits, size)`. (Two steps, map to canvas and canvas to frame, would blur
    twice.) Columns are interpolated before rows, every product and sum is rounded to float32: so
    does `mask_pack` on a GPU, whose masks are the same to the pixel. Only the extent of the mask
    is computed: a bilinear value is at most the largest of its four neighbours, so no pixel
    further than one map cell from a cell above the threshold can be above it.

    Args:
        logits: (h, w) float32, finite.
        size: Height and width of the frame, pixels, at least 1.
        filled: Rows and columns of the map that the frame fills, each in (0, h] and (0, w], may
            be fractional (a frame resized to 683 rows at stride 4 fills 170.75); None = all.
        threshold: True where the logit is greater; 0 means a probability above one half.

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
    """Where the map, read at some rows and columns of the frame, is above the threshold."""
    first, left = int(rows.lower[0]), int(cols.lower[0])
    part = logits[first : int(rows.upper[-1]) + 1, left : int(cols.upper[-1]) + 1]  # (r, c)
    rows, cols = rows.counted_from(first), cols.counted_from(left)
    few = len(rows.lower) * len(cols.lower) <= _BAND
    return (every_pixel if few else by_blocks)(part, rows, cols, threshold)


def every_pixel(
    part: NDArray[np.float32], rows: Axis, cols: Axis, threshold: float
) -> NDArray[np.bool_]:
    """(R, C) pixels of an (r, c) map above the threshold, each of them computed.

    Columns come first, because the map has few rows; then rows, one band of them at a time, so
    that a band's intermediate values stay in the cache.
    """
    wide = lerp(part.take(cols.lower, 1), part.take(cols.upper, 1), cols.share)  # (r, C)
    out = np.empty((len(rows.lower), len(cols.lower)), np.bool_)
    step = max(1, _BAND // out.shape[1])
    for start in range(0, len(out), step):
        band = rows.part(start, start + step)
        before, after = wide.take(band.lower, 0), wide.take(band.upper, 0)
        values = lerp(before, after, band.share[:, None])  # (step, C)
        np.greater(values, threshold, out=out[start : start + step])
    return out


def by_blocks(
    part: NDArray[np.float32], rows: Axis, cols: Axis, threshold: float
) -> NDArray[np.bool_]:
    """The same, where only blocks of pixels between cells on both sides are computed.

    The others are filled: a mean is between the least and the largest of its four cells.
    """
    down, right = Blocks.of(rows), Blocks.of(cols)
    around = corners_of(part, len(down.starts), len(right.starts))  # four of (n, m)
    least, largest = np.minimum.reduce(around), np.maximum.reduce(around)
    margin = _ROUNDING * float(np.abs(part).max())
    above = least > threshold + margin
    out = np.repeat(np.repeat(above, right.counts, 1), down.counts, 0)  # (R, C)
    mixed = ~above & (largest > threshold - margin)
    mixed &= (down.counts > 0)[:, None] & (right.counts > 0)
    row, col = np.nonzero(mixed)  # (N,)
    if not len(row):
        return out
    corners = [part[cells] for cells in cells_around(row, col, part.shape)]  # four of (N,)
    flat, pixels = out.reshape(-1), int(down.counts.max() * right.counts.max())
    step = max(1, _AT_ONCE // pixels)
    for start in range(0, len(row), step):
        some = slice(start, start + step)
        y, x = down.pixels(row[some]), right.pixels(col[some])  # (S, n), (T, n)
        values = _means([corner[some] for corner in corners], down.share[y], right.share[x])
        # One index is faster than two.
        flat[(y * out.shape[1])[:, None] + x] = values > threshold
    return out


def _means(
    corners: Sequence[NDArray[np.float32]], down: NDArray[np.float32], right: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Four (n,) cells at the (S, n) rows and (T, n) columns of their blocks: (S, T, n).

    In the steps of `lerp`: columns first, each product and sum rounded.
    """
    here = 1 - right
    top = corners[0] * here + corners[1] * right  # (T, n)
    low = corners[2] * here + corners[3] * right
    below = down[:, None]  # (S, 1, n)
    means: NDArray[np.float32] = top * (1 - below)  # (S, T, n)
    means += low * below
    return means
