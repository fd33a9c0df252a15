"""Which frames may hold regions that an index does not: of queries that were dropped.

A dropped query adds nothing to an answer if its score lies under the threshold, or if a region of
the answer suppresses it: one of a higher score, whose box overlaps its own. The proof is by order
of scores. Suppression takes the highest first; it meets each dropped query after the region that
suppresses it, so the dropped query neither stays nor suppresses another one, and all other queries
are decided as if it were not there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from ape_stream.index.alignment import scores_of
from ape_stream.index.scan import Words, logit_floor
from ape_stream.index.selection import CANDIDATES, suppresses_each

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.index.part import Part

__all__ = ["Selected", "lost_logits"]

_WORDS_AT_ONCE: Final = 256
_PAIRS: Final = 8192
"""Of frames and words that are looked at together: at most some megabytes of logits."""


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

    def of_words(self, own: slice) -> Selected:
        """Those of some words, which are counted from the first of these."""
        some = self.take(np.flatnonzero((self.words >= own.start) & (self.words < own.stop)))
        return Selected(some.rows, some.words - own.start, some.scores)


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
    spheres, floor = part.spheres, logit_floor(words.thresholds)
    frame_of = spheres.frame_of()  # (S,)
    lost = np.full((len(part.frames.index), len(floor)), -np.inf, np.float32)
    wanted = np.zeros(len(lost), np.bool_)
    wanted[frames] = True
    wanted = wanted[frame_of]  # (S,)
    coarse = spheres.members > 0
    limit = max(per_prompt, CANDIDATES // max(1, len(floor)))
    for first in range(0, len(floor), _WORDS_AT_ONCE):
        own = slice(first, first + _WORDS_AT_ONCE)
        chunk = Words(words.vectors[own], words.biases[own], words.thresholds[own])
        bounds = spheres.each(chunk.vectors, chunk.biases, part.head)  # (S, W)
        over = ~(bounds < floor[own]) & wanted[:, None]
        at, asked = np.nonzero(over & ~coarse[:, None])
        np.maximum.at(lost, (frame_of[at], asked + first), bounds[at, asked])
        opened = np.unique(frame_of[coarse & over.any(axis=1)])
        step = max(1, _PAIRS // over.shape[1])
        regions = found.of_words(own)
        for start in range(0, len(opened), step):
            group = _Group(part, opened[start : start + step])
            columns, highest = group.highest(chunk, over, regions, limit)
            place = np.ix_(group.frames, columns + first)
            lost[place] = np.maximum(lost[place], highest)
    return lost[frames]


class _Group:
    """The coarse states of some frames of a part, of which each has one.

    Args:
        part: Of the index.
        frames: (G,) positions in the part, rising.
    """

    def __init__(self, part: Part, frames: NDArray[np.intp]) -> None:
        self.frames = frames
        self._part = part
        coarse = part.coarse(frames)
        self._counts = part.coarse_counts[frames]  # (G,)
        self._starts = np.cumsum(self._counts) - self._counts
        rows = coarse.base + np.repeat(part.frames.first_row[frames], self._counts)
        self._kept, base = np.unique(rows, return_inverse=True)
        self._coarse = replace(coarse, base=base)
        wanted = np.zeros(len(part.frames.index), np.bool_)
        wanted[frames] = True
        own = np.flatnonzero(wanted[part.spheres.frame_of()])
        self._spheres = np.repeat(own, part.spheres.members[own])  # (M,)

    def highest(
        self, words: Words, over: NDArray[np.bool_], found: Selected, limit: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The highest logits that these states may add to an answer.

        Args:
            words: W of them.
            over: (S, W) spheres of the part that may reach a word's floor.
            found: Regions of these words in the part.
            limit: Most queries of a frame that a run admits to suppression.

        Returns:
            (V,) positions of the words that a sphere is open for, and (G, V).
        """
        opened = over[self._spheres]  # (M, W)
        columns = np.flatnonzero(opened.any(axis=0))
        products = self._coarse.upper_products(
            self._part.states(self._kept), words.vectors[columns]
        )
        logits = products / np.float64(self._part.head.scale)
        logits += words.biases[columns].astype(np.float64)
        # One unit more covers the division and the sum.
        highest = np.nextafter(logits.astype(np.float32), np.float32(np.inf))
        highest[~opened[:, columns]] = -np.inf
        lower = scores_of(highest) < self._strongest(columns, found, limit)
        highest[lower] = -np.inf
        return columns, np.maximum.reduceat(highest, self._starts, axis=0)

    def _strongest(
        self, columns: NDArray[np.intp], found: Selected, limit: int
    ) -> NDArray[np.float32]:
        """(M, V) the best score of a region that suppresses a query; -1: there is none."""
        part = self._part
        strongest = np.full((len(self._spheres), len(columns)), -1, np.float32)
        # Where more queries enter suppression than a run admits, the weakest are left out.
        queries = np.diff(part.frames.first_row) + part.frames.dropped
        frames = part.rows.frame[found.rows]
        at = np.searchsorted(self.frames, frames).clip(max=len(self.frames) - 1)
        word = np.searchsorted(columns, found.words).clip(max=len(columns) - 1)
        own = (self.frames[at] == frames) & (columns[word] == found.words)
        own = np.flatnonzero(own & (queries[frames] <= limit))
        # Each of these regions with each state of its frame.
        counts = self._counts[at[own]]
        begins = np.cumsum(counts) - counts
        states = np.arange(counts.sum()) + np.repeat(self._starts[at[own]] - begins, counts)
        regions = np.repeat(own, counts)
        boxes = part.rows.box[found.rows[regions]]
        near = suppresses_each(self._coarse.box[states], boxes)
        states, regions = states[near], regions[near]
        np.maximum.at(strongest, (states, word[regions]), found.scores[regions])
        return strongest
