"""The inner loops of indexing, compiled by numba where it is installed (extra `numba`).

Each has a plain form in NumPy, whose results it has bit for bit: comparisons, whole numbers, and
single operations of float32 in the same order. Loading takes as long as NumPy takes for hundreds of
frames: so they are loaded once a process has kept as many.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.index.cells import STUFF, THING

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Loops", "loops", "worthwhile"]

_PAYS: Final = 1000
"""Frames after which a process loads the loops."""


def _survivors(logits: Any, boxes: Any, floor: Any, iou: Any) -> Any:  # noqa: C901 (one loop nest)
    """See `survivors`; `iou` is `NMS_IOU`."""
    words, count = logits.shape
    zero = np.float32(0)
    near = np.zeros((count, count), np.bool_)
    for a in range(count):
        for b in range(a):
            width = min(boxes[a, 2], boxes[b, 2]) - max(boxes[a, 0], boxes[b, 0])
            height = min(boxes[a, 3], boxes[b, 3]) - max(boxes[a, 1], boxes[b, 1])
            overlap = max(width, zero) * max(height, zero)
            own = (boxes[a, 2] - boxes[a, 0]) * (boxes[a, 3] - boxes[a, 1])
            other = (boxes[b, 2] - boxes[b, 0]) * (boxes[b, 3] - boxes[b, 1])
            near[a, b] = near[b, a] = overlap / (own + other - overlap) > iou
    best, lead = np.full(count, -np.inf, np.float32), np.full(count, np.inf, np.float32)
    alive = np.empty(count, np.int64)
    for word in range(words):
        row, left = logits[word], 0
        for query in range(count):
            if floor <= row[query]:
                alive[left] = query
                left += 1
        while left:
            first = alive[0]
            for k in range(1, left):
                if row[alive[k]] > row[first]:
                    first = alive[k]
            best[first] = max(best[first], row[first])
            some, left = left, 0
            for k in range(some):
                query = alive[k]
                if near[first, query]:
                    lead[query] = min(lead[query], row[first] - row[query])
                elif query != first:
                    alive[left] = query
                    left += 1
    return best, lead


def _groups(boxes: Any, order: Any, iou: Any) -> Any:
    """See `grouped`; `order` is (K,) rows, the strongest first, and `iou` `SAME_IOU`."""
    zero = np.float32(0)
    owner, leaders = np.full(len(boxes), -1, np.int64), np.empty(len(boxes), np.int64)
    count = 0
    for row in order:
        if owner[row] >= 0:
            continue
        x1, y1, x2, y2 = boxes[row]
        area = max(x2 - x1, zero) * max(y2 - y1, zero)
        for other in range(len(boxes)):
            ox1, oy1, ox2, oy2 = boxes[other]
            width, height = min(x2, ox2) - max(x1, ox1), min(y2, oy2) - max(y1, oy1)
            common = max(width, zero) * max(height, zero)
            union = area + max(ox2 - ox1, zero) * max(oy2 - oy1, zero) - common
            same = union > zero and common / union > iou
            if owner[other] < 0 and (same or other == row):
                owner[other] = count
        leaders[count] = row
        count += 1
    return leaders[:count], owner


def _deciding(  # noqa: C901, PLR0912 (one compiled loop nest)
    logits: Any, lines: Any, down: Any, across: Any, filled: Any
) -> Any:
    """See `pack_maps` and `surely_drawn`; eight cells at once, as bits of a byte.

    Args:
        logits: (K, h, w) int8.
        lines: (K, h, ceil(w / 8)) which are positive, as `np.packbits` of each row.
        down: (K, h) of `inside_boxes`; (0, 0) where masks are not cut.
        across: (K, ceil(w / 8)) of `inside_boxes`, as bits.
        filled: Whole rows and columns of the maps that the image fills.

    Returns:
        (K,) counts, (n,) numbers, and (K,) which are drawn for sure.
    """
    count, height, width = logits.shape
    size = lines.shape[2]
    counts, drawn = np.zeros(count, np.uint32), np.zeros(count, np.uint8)
    numbers = np.empty(logits.size, np.int8)
    # Cells, and those that are the upper left one of a square.
    valid, corner = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for x in range(width):
        valid[x >> 3] |= 128 >> (x & 7)
        corner[x >> 3] |= (x < filled[1] - 1) * (128 >> (x & 7))
    cells, mixed = np.zeros((height + 1, size), np.int64), np.zeros((height + 1, size), np.int64)
    kept, near = np.zeros((height, size), np.int64), np.zeros((height, size), np.int64)
    end = 0
    for k in range(count):
        begin = end
        for y in range(height):
            for j in range(size):
                cells[y, j] = lines[k, y, j]
        square = _near(cells, mixed, kept, valid, corner, (width, filled[0]))  # type: ignore[name-defined]  # noqa: F821
        drawn[k] = STUFF * square
        cut = 0
        for y in range(len(down) and height):
            for j in range(size):
                outside = lines[k, y, j] & ~(across[k, j] * down[k, y])
                cells[y, j] = lines[k, y, j] ^ outside
                cut |= outside
        if cut:
            square = _near(cells, mixed, near, valid, corner, (width, filled[0]))  # type: ignore[name-defined]  # noqa: F821
            for y in range(height):
                for j in range(size):
                    kept[y, j] |= near[y, j] & across[k, j] * down[k, y]
        drawn[k] |= THING * square
        for y in range(height):
            for j in range(size):
                left = kept[y, j]
                for bit in range(8 if left else 0):
                    if left >> (7 - bit) & 1:
                        numbers[end] = logits[k, y, 8 * j + bit]
                        end += 1
        counts[k] = end - begin
    return counts, numbers[:end], drawn


def _near_change(cells: Any, mixed: Any, near: Any, valid: Any, corner: Any, sides: Any) -> Any:
    """Which cells of a map are in a block of both signs, and whether there is a square.

    Args:
        cells: (h + 1, n) bits of positive cells; the last row and what is beyond the last column
            are repeated here, as pixels at the border read them.
        mixed: (h + 1, n) gets, one row lower, which cells are the upper left one of such a block;
            its first row is 0.
        near: (h, n) gets what is asked for.
        valid: (n,) bits of columns.
        corner: (n,) bits of those where a square can begin.
        sides: Columns of the map, and rows where a square can be.

    Returns:
        1: four positive cells are a square; 0.
    """
    height, size = near.shape
    width, rows = sides
    last, square = 7 - ((width - 1) & 7), 0
    for y in range(height):
        cells[y, size - 1] |= (cells[y, size - 1] >> last & 1) * ((1 << last) - 1)
    cells[height] = cells[height - 1]
    for y in range(height):
        right, below_right = cells[y, size - 1] & 1, cells[y + 1, size - 1] & 1
        for j in range(size - 1, -1, -1):
            a, c = cells[y, j], cells[y + 1, j]
            b, d = (a << 1 | right) & 255, (c << 1 | below_right) & 255
            right, below_right = a >> 7, c >> 7
            every = a & b & c & d
            mixed[y + 1, j] = (a | b | c | d) & ~every & valid[j]
            square |= every & corner[j] * (y < rows - 1)
    for y in range(height):
        carried = 0
        for j in range(size):
            both = mixed[y, j] | mixed[y + 1, j]
            near[y, j] = (both | both >> 1 | carried) & valid[j]
            carried = (both & 1) << 7
    return min(square, 1)


def _differences(states: Any, kept: Any, base: Any) -> Any:
    """See `differences`."""
    count, width = states.shape
    code, step = np.empty((count, width), np.int8), np.empty(count, np.float32)
    lost = np.empty(count, np.float64)
    for k in range(count):
        state, nearest = states[k], kept[base[k]]
        largest = np.float32(0)
        for c in range(width):
            largest = max(largest, abs(state[c] - nearest[c]))
        step[k] = max(largest / np.float32(127), np.float32(1e-30))
        total = 0.0
        for c in range(width):
            code[k, c] = np.rint((state[c] - nearest[c]) / step[k])
            rest = np.float64(state[c]) - np.float64(nearest[c])
            rest -= np.float64(code[k, c]) * np.float64(step[k])
            total += rest * rest
        lost[k] = np.sqrt(total)
    return code, step, lost


def _nearest_of_far(distances: Any, count: int) -> Any:
    """See `nearest_of_far`."""
    points = len(distances)
    owner, nearest = np.zeros(points, np.int64), distances[0].copy()
    for number in range(1, min(count, points)):
        chosen = nearest.argmax()
        for k in range(points):
            if distances[chosen, k] < nearest[k]:
                owner[k], nearest[k] = number, distances[chosen, k]
    return owner


@dataclass(frozen=True, slots=True)
class Loops:
    """The compiled loops."""

    survivors: Callable[..., tuple[NDArray[np.float32], NDArray[np.float32]]]
    """See `_survivors`."""
    groups: Callable[..., tuple[NDArray[np.intp], NDArray[np.intp]]]
    """See `_groups`."""
    deciding: Callable[..., tuple[NDArray[np.uint32], NDArray[np.int8], NDArray[np.uint8]]]
    """See `_deciding`."""
    differences: Callable[..., tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float64]]]
    """See `_differences`."""
    nearest_of_far: Callable[..., NDArray[np.intp]]
    """See `_nearest_of_far`."""


@cache
def loops() -> Loops | None:
    """The loops, compiled at their first call or read from numba's cache; None without numba."""
    try:
        numba: Any = importlib.import_module("numba")
    except ImportError:
        return None
    # Not `fastmath`: an overlap exactly at the limit is decided as in NumPy.
    compiled = numba.njit(nogil=True, cache=True, error_model="numpy")
    globals()["_near"] = compiled(_near_change)
    every = (_survivors, _groups, _deciding, _differences, _nearest_of_far)
    return Loops(*map(compiled, every))


_kept = 0


def worthwhile(frames: int) -> Loops | None:
    """The loops once this process has kept so many frames that they pay.

    Args:
        frames: That are kept now.
    """
    global _kept  # noqa: PLW0603 (a count of this process)
    _kept += frames
    return loops() if _kept > _PAYS else None
