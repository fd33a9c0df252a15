"""Which pairs of a row and a word become regions: suppression and limits, as in a live run.

The rules of `ape_model.inference.selection`, in NumPy: every operation on boxes is one float32
operation there and here, so both decide alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["CANDIDATES", "NMS_IOU", "select_pairs", "suppresses", "suppresses_each"]

NMS_IOU: Final = 0.7
"""IoU above which the weaker of two regions of a prompt is dropped."""
CANDIDATES: Final = 1_000_000
"""Pairs of a frame that may enter suppression; beyond it, each prompt's strongest do."""


def select_pairs(
    frames: NDArray[np.int64],
    words: NDArray[np.intp],
    scores: NDArray[np.float32],
    boxes: NDArray[np.float32],
    per_prompt: int,
) -> NDArray[np.intp]:
    """Select from pairs that reach their threshold.

    Args:
        frames: (H,) frame of each pair; pairs are in the order of frames, queries and words.
        words: (H,) word of each pair.
        scores: (H,) of each pair.
        boxes: (H, 4) x1 y1 x2 y2 of its query, in 0..1.
        per_prompt: Most regions of one word in one frame.

    Returns:
        Positions of selected pairs: frame by frame, strongest first, of equal ones the first.
    """
    order = np.lexsort((-scores, words, frames))  # stable: of equal scores the earlier query
    change = (np.diff(frames[order]) != 0) | (np.diff(words[order]) != 0)
    starts = np.concatenate([[0], np.flatnonzero(change) + 1, [len(order)]])
    limits = _limits(frames, order[starts[:-1]], per_prompt) if len(order) else []
    kept = np.ones(len(order), np.bool_)
    for first, end in _several(starts):
        own = _not_suppressed(boxes[order[first:end]])
        own[limits[int(np.searchsorted(starts, first))] :] = False
        own &= np.cumsum(own) <= per_prompt
        kept[first:end] = own
    chosen = np.sort(order[kept])
    return chosen[np.lexsort((-scores[chosen], frames[chosen]))]


def _several(starts: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Begin and end of the groups of more than one."""
    for group in np.flatnonzero(np.diff(starts) > 1).tolist():
        yield int(starts[group]), int(starts[group + 1])


def _limits(frames: NDArray[np.int64], first: NDArray[np.intp], per_prompt: int) -> list[int]:
    """How many pairs of each group may enter suppression: a frame's words share the budget."""
    _, group_frame, present = np.unique(frames[first], return_inverse=True, return_counts=True)
    limits: list[int] = np.maximum(per_prompt, CANDIDATES // present)[group_frame].tolist()
    return limits


def _not_suppressed(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Greedy non-maximum suppression of (n, 4) boxes, strongest first: which stay, (n,)."""
    near = suppresses(boxes, boxes)
    keep = np.ones(len(boxes), np.bool_)
    for index in range(1, len(boxes)):
        keep[index] = not (near[index, :index] & keep[:index]).any()
    return keep


def suppresses(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether (n, 4) and (m, 4) boxes overlap so much that one suppresses the other, (n, m)."""
    # By coordinates: of arrays (n, m, 4) each operation would step over three of four numbers.
    return _near(a.T[:, :, None], np.ascontiguousarray(b.T)[:, None])


def suppresses_each(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The same for pairs of boxes, (..., 4) each, where these shapes fit together: (...,)."""
    return _near(np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0))


def _near(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The same of (4, ...) coordinates."""
    zero = np.float32(0)
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    width = np.minimum(ax2, bx2) - np.maximum(ax1, bx1)
    height = np.minimum(ay2, by2) - np.maximum(ay1, by1)
    overlap = np.maximum(width, zero) * np.maximum(height, zero)
    areas = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)
    with np.errstate(invalid="ignore"):  # two boxes without area: not a number, so no overlap
        near: NDArray[np.bool_] = overlap / (areas - overlap) > np.float32(NMS_IOU)
    return near
