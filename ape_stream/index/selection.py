"""Which pairs of a row and a word become regions, and these regions, as in a live run.

Suppression and limits have the rules of `ape_model.inference.selection`, in NumPy: every operation
on boxes is one float32 operation there and here, so both decide alike. What masks decide is by the
code of a live run, and masks are made only where they decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ape_stream import masks
from ape_stream.types import Instances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ape_stream.index.part import Part

__all__ = [
    "CANDIDATES",
    "NMS_IOU",
    "NOTHING",
    "Outline",
    "Regions",
    "select_pairs",
    "suppresses",
    "suppresses_each",
]

NMS_IOU: Final = 0.7
"""IoU above which the weaker of two regions of a prompt is dropped."""
CANDIDATES: Final = 1_000_000
"""Pairs of a frame that may enter suppression; beyond it, each prompt's strongest do."""
_UNITED: Final = -1
"""Stands for the track of a union of stuff."""


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


class Outline(NamedTuple):
    """N regions without boxes and masks."""

    scores: NDArray[np.float32]
    """(N,) 0..1."""
    prompt_ids: NDArray[np.int64]
    """(N,) positions of prompts."""
    objects: NDArray[np.int64]
    """(N,) tracks of the index: 0 is on none, -1 a union of stuff."""


NOTHING: Final = Outline(np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))


class Regions:
    """Selected pairs of a row and a word of one frame, strongest first.

    Args:
        part: Of the index.
        rows: (n,) of the part, of one frame, at least one.
        words: (n,) positions of words.
        scores: (n,).
        stuff: Of all words, which are stuff.
    """

    def __init__(
        self,
        part: Part,
        rows: NDArray[np.intp],
        words: NDArray[np.intp],
        scores: NDArray[np.float32],
        stuff: NDArray[np.bool_],
    ) -> None:
        self._part = part
        self._rows = rows
        self._words = words
        self._scores = scores
        self._stuff = stuff

    def outline(self) -> Outline:
        """What there is, in the order of `instances`."""
        of_stuff = self._stuff[self._words]
        if self._masks_decide(of_stuff):
            found = self.instances()
            return Outline(found.scores, found.prompt_ids, _ids(found))
        if not of_stuff.any():
            return Outline(self._scores, self._words.astype(np.int64), self._tracks())
        # As `masks.merge_stuff`: things first, then one region for each word that is stuff.
        things, own = np.flatnonzero(~of_stuff), np.flatnonzero(of_stuff)
        first = np.unique(self._words[own], return_index=True)[1]  # of each word the strongest
        order = np.concatenate([things, own[first]])
        objects = self._tracks()[order]
        objects[len(things) :] = _UNITED
        return Outline(self._scores[order], self._words[order].astype(np.int64), objects)

    def _tracks(self) -> NDArray[np.int64]:
        return self._part.rows.track[self._rows]

    def _masks_decide(self, of_stuff: NDArray[np.bool_]) -> bool:
        """Whether one may be without a pixel, or two things of one word be the same."""
        if not self._part.surely_drawn(self._rows, of_stuff).all():
            return True
        things = np.flatnonzero(~of_stuff)
        words = self._words[things]
        if len(things) == len(set(words.tolist())):
            return False
        box = self._part.reach(self._rows[things])
        meet = (box[:, None, :2] < box[None, :, 2:]).all(axis=2)  # (n, n)
        alike = meet & meet.T & (words[:, None] == words)
        return bool(np.count_nonzero(alike) > len(things))  # each meets itself

    def instances(self) -> Instances:
        """With masks; track ids are those of the index, -1 of a union of stuff."""
        # Several words share a row's mask; that of stuff is another one.
        keys, which = np.unique(2 * self._rows + self._stuff[self._words], return_inverse=True)
        drawn = self._part.masks(keys // 2, keys % 2 == 1)
        every = [drawn[k] for k in which.tolist()]
        # A mask without a pixel is no region, however sure its score is.
        kept = np.array([k for k, mask in enumerate(every) if mask.bitmap.size], np.intp)
        own = tuple(every[k] for k in kept)
        prompt_ids = self._words[kept].astype(np.int64)
        found = Instances(
            boxes=masks.boxes(own),
            scores=self._scores[kept],
            prompt_ids=prompt_ids,
            masks=own,
            size=self._part.size(int(self._part.rows.frame[self._rows[0]])),
        )
        united = masks.merge_stuff(found, self._stuff)
        things = self._tracks()[kept][~self._stuff[prompt_ids]]
        objects = np.full(len(united), _UNITED, np.int64)
        objects[: len(things)] = things  # the things come first, in their order
        return masks.suppress_duplicates(united.with_track_ids(objects))


def _ids(found: Instances) -> NDArray[np.int64]:
    assert found.track_ids is not None  # noqa: S101 (`instances` gave them)
    return found.track_ids
