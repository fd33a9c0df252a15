"""Which frames may hold regions that an index does not: of queries that were dropped.

A dropped query adds nothing to an answer if its score lies under the threshold, or if a region of
the answer suppresses it: one of a higher score, whose box overlaps its own. The proof is by order
of scores. Suppression takes the highest first; it meets each dropped query after the region that
suppresses it, so the dropped query neither stays nor suppresses another one, and all other queries
are decided as if it were not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from ape_stream.index.alignment import scores_of
from ape_stream.index.scan import logit_floor
from ape_stream.index.selection import CANDIDATES, suppresses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ape_stream.index.dropped.coarse import CoarseStates
    from ape_stream.index.part import Part
    from ape_stream.index.scan import Words

__all__ = ["Selected", "lost_logits"]

_WORDS_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """Pairs of a row and a word that are regions, frame by frame."""

    rows: NDArray[np.intp]
    """(H,) rows of the part; those of a frame in any order."""
    words: NDArray[np.intp]
    """(H,) positions of words."""
    scores: NDArray[np.float32]
    """(H,)."""

    def take(self, own: slice | NDArray[np.intp]) -> Selected:
        """Some of them."""
        return Selected(self.rows[own], self.words[own], self.scores[own])


def lost_logits(
    part: Part, frames: NDArray[np.intp], words: Words, found: Selected, per_prompt: int
) -> NDArray[np.float32]:
    """The highest logits that dropped queries may add to an answer.

    Args:
        part: Of the index.
        frames: (f,) positions of frames in the part.
        words: P of them.
        found: Regions of all words in these frames.
        per_prompt: Most regions of one word in one frame.

    Returns:
        (f, P): where it is under the word's threshold, nothing is lost.
    """
    lost = np.full((len(part.frames.index), len(words.vectors)), -np.inf, np.float32)
    wanted = np.zeros(len(lost), np.bool_)
    wanted[frames] = True
    floor = logit_floor(words.thresholds)
    ends = np.searchsorted(part.rows.frame[found.rows], np.arange(len(lost) + 1)).tolist()
    limit = max(per_prompt, CANDIDATES // max(1, len(floor)))
    for frame, spheres, asked, bounds in _open_spheres(part, wanted, words, floor):
        opened = part.spheres.members[spheres] > 0
        np.maximum.at(lost[frame], asked[~opened], bounds[~opened])
        if opened.any():
            own = np.unique(asked[opened])
            coarse = part.coarse(frame)
            highest = _highest(part, frame, coarse, words, own)  # (M, W)
            table = _opened(part, frame, spheres[opened], np.searchsorted(own, asked[opened]))
            logits = np.where(table, highest, np.float32(-np.inf))
            # Where more queries enter suppression than a run admits, the weakest are left out.
            rows = part.rows_of(frame)
            if rows.stop - rows.start + part.frames.dropped[frame] <= limit:
                regions = _by_row(rows, own, found.take(slice(ends[frame], ends[frame + 1])))
                near = suppresses(coarse.box, part.rows.box[rows])  # (M, K)
                logits[_suppressed(scores_of(logits), near, regions)] = -np.inf
            lost[frame, own] = np.maximum(lost[frame, own], logits.max(axis=0))
    return lost[frames]


def _open_spheres(
    part: Part, wanted: NDArray[np.bool_], words: Words, floor: NDArray[np.float32]
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]]:
    """By frame: spheres (n,), words (n,) and bounds (n,) of the pairs that may reach a floor."""
    spheres = part.spheres
    frame_of = spheres.frame_of()  # (S,)
    for first in range(0, len(floor), _WORDS_AT_ONCE):
        chunk = slice(first, first + _WORDS_AT_ONCE)
        bounds = spheres.each(words.vectors[chunk], words.biases[chunk], part.head)  # (S, P)
        over = ~(bounds < floor[chunk])
        over &= wanted[frame_of][:, None]
        at, asked = np.nonzero(over)
        borders = np.flatnonzero(np.diff(frame_of[at], prepend=-1, append=-1))
        for start, end in pairwise(borders.tolist()):
            own = slice(start, end)
            yield int(frame_of[at[start]]), at[own], asked[own] + first, bounds[at[own], asked[own]]


def _opened(
    part: Part, frame: int, spheres: NDArray[np.intp], own: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Which coarse states of a frame (M, W) are in a sphere that is open for a word.

    Args:
        part: Of the index.
        frame: Position in the part.
        spheres: (n,) those that are open.
        own: (n,) for which of W words, each of which is there.
    """
    first = int(part.spheres.first[frame])
    members = part.spheres.members[first : int(part.spheres.first[frame + 1])]
    table = np.zeros((len(members), int(own.max()) + 1), np.bool_)
    table[spheres - first, own] = True
    return np.repeat(table, members, axis=0)


def _highest(
    part: Part, frame: int, coarse: CoarseStates, words: Words, own: NDArray[np.intp]
) -> NDArray[np.float32]:
    """The highest logits (M, W) that the coarse states of a frame can have for some words."""
    kept = part.states(part.rows_of(frame))
    products = coarse.upper_products(kept, words.vectors[own])
    logits = products / np.float64(part.head.scale) + words.biases[own].astype(np.float64)
    # One unit more covers the division and the sum.
    highest: NDArray[np.float32] = np.nextafter(logits.astype(np.float32), np.float32(np.inf))
    return highest


def _by_row(rows: slice, own: NDArray[np.intp], found: Selected) -> NDArray[np.float32]:
    """Scores (K, W) of the regions of one frame by row and word; -1 where there is none."""
    scores = np.full((rows.stop - rows.start, len(own)), -1, np.float32)
    at = np.searchsorted(own, found.words).clip(max=len(own) - 1)
    asked = own[at] == found.words
    scores[found.rows[asked] - rows.start, at[asked]] = found.scores[asked]
    return scores


def _suppressed(
    highest: NDArray[np.float32], near: NDArray[np.bool_], scores: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Which dropped queries (M, W) a region of the same word certainly suppresses.

    Args:
        highest: (M, W) scores that they can have.
        near: (M, K) which of the frame's rows overlap with them.
        scores: (K, W) of regions.
    """
    strongest = np.where(near[:, :, None], scores, -1).max(axis=1, initial=-1)  # (M, W)
    lower: NDArray[np.bool_] = highest < strongest
    return lower
