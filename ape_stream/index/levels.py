"""Small bounds of many states, so that a search reads few of the states themselves.

A state h is written as h = m + U'(q s) + e: the mean m of its part, its coordinates along the k
directions U in which states vary most, as 8-bit codes q of step s, and a rest e of which only the
length is kept. For a text vector t that gives

    h t <= m t + sum_j q_j s_j (U t)_j + sum_j s_j / 2 |(U t)_j| + |e| |t - U'U t|

for k + 2 bytes of a row in place of 2 C. Above the rows are segments: up to 32 rows that follow one
object, with the lowest and the highest code of each coordinate; a segment's bound takes the one or
the other by the sign of (U t)_j. Boxes along these directions are much tighter than balls: states
of one object change along few directions, and those are not the ones in which words differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ape_stream.index.alignment import Head

__all__ = ["Directions", "Levels", "Slopes", "build_levels"]

DIRECTIONS: Final = 32
"""k: of nano's 128 they hold 98.6 % of the variance between states."""
SEGMENT: Final = 32
"""Most rows of a segment."""
_SAMPLE: Final = 16_384
"""Most rows that decide the directions."""
SLACK: Final = 2.0**-15
"""Above every rounding error of a bound, in parts of |h| |t|: of products in 32 bits, of directions
that are orthonormal up to 1e-7, and of the fixed point of exact scores (2^-17 at C = 256)."""


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """P words as a part's levels see them; everything is divided by the scale of the head."""

    along: NDArray[np.float32]
    """(k, P) of a code, for each direction: s_j (U t)_j."""
    across: NDArray[np.float32]
    """(P,) of the length of the rest: |t - U'U t|."""
    base: NDArray[np.float32]
    """(P,) of every row: m t, the bias, half a step of each code, and the slack."""


@dataclass(frozen=True, eq=False)
class Levels:
    """The bounds of the N rows of a part, in segments; arrays may be mapped from a file."""

    mean: NDArray[np.float64]
    """(C,) m."""
    directions: NDArray[np.float64]
    """(k, C) U, orthonormal rows."""
    steps: NDArray[np.float64]
    """(k,) s."""
    longest: NDArray[np.float64]
    """() the largest |h|."""
    first: NDArray[np.int32]
    """(S + 1,) where each segment begins; the last one is N."""
    low: NDArray[np.int8]
    """(S, k) lowest codes of a segment."""
    high: NDArray[np.int8]
    """(S, k) highest codes of a segment."""
    farthest: NDArray[np.float16]
    """(S,) the largest `rest` of a segment."""
    order: NDArray[np.int32]
    """(N,) the row in the part."""
    codes: NDArray[np.int8]
    """(N, k) q, in this order."""
    rest: NDArray[np.float16]
    """(N,) |e|, rounded up, in this order."""

    @property
    def rows(self) -> int:
        """N."""
        return len(self.order)

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """(S, 2 k) middle and half width of each segment's codes."""
        low, high = self.low.astype(np.float32), self.high.astype(np.float32)
        return np.concatenate([(low + high) / 2, (high - low) / 2], axis=1)

    def candidates(
        self, slopes: Slopes, floor: NDArray[np.float32]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Pairs of a row and a word whose logit may reach the word's floor.

        Args:
            slopes: Of P words, from `Directions.slopes`.
            floor: (P,) logits.

        Returns:
            (H,) rows of the part and (H,) positions of words, by row and then by word: every pair
            that reaches its floor, and few others.
        """
        needed = floor - slopes.base  # (P,)
        both = np.concatenate([slopes.along, np.abs(slopes.along)])  # (2 k, P)
        highest = self.boxes @ both  # (S, P)
        highest += np.multiply.outer(self.farthest.astype(np.float32), slopes.across)
        segments, words = np.nonzero(highest >= needed)  # (O,)
        if not len(segments):
            return np.zeros(0, np.intp), np.zeros(0, np.intp)
        # The rows of each open segment; a short one repeats its last row.
        at = self.first[segments, None] + np.arange(SEGMENT)  # (O, 32)
        exists = at < self.first[segments + 1, None]
        np.minimum(at, self.first[segments + 1, None] - 1, out=at)
        codes = self.codes[at].astype(np.float32)  # (O, 32, k)
        bound = np.matmul(codes, slopes.along.T[words][:, :, None])[:, :, 0]
        bound += self.rest[at].astype(np.float32) * slopes.across[words][:, None]
        near = exists & (bound >= needed[words][:, None])
        rows, columns = self.order[at[near]].astype(np.intp), np.repeat(words, near.sum(axis=1))
        order = np.lexsort((columns, rows))
        return rows[order], columns[order]


class Directions:
    """The means and directions of many levels as one array: words are projected on all at once.

    Args:
        levels: Of L parts.
        head: Of the index.
    """

    def __init__(self, levels: Sequence[Levels], head: Head) -> None:
        # k varies: an index of few rows has fewer directions.
        frames = [np.concatenate([one.directions, one.mean[None]]) for one in levels]
        self._ends = np.cumsum([len(frame) for frame in frames])
        self._stacked = np.concatenate(frames) if frames else np.zeros((0, head.width))
        self._levels = levels
        self._head = head

    def slopes(self, vectors: NDArray[np.float32], biases: NDArray[np.float32]) -> Iterator[Slopes]:
        """What the bounds of P words, projected by the head, are made of, for each part."""
        wide = vectors.astype(np.float64)  # (P, C)
        lengths = np.square(wide).sum(axis=1)  # (P,)
        products = self._stacked @ wide.T  # (sum of k + 1, P)
        scale = np.float64(self._head.scale)
        for levels, end in zip(self._levels, self._ends.tolist(), strict=True):
            along, mean = products[end - 1 - len(levels.steps) : end - 1], products[end - 1]
            # By Pythagoras; what cancels is added back, so that it is an upper bound.
            outside = np.maximum(lengths - np.square(along).sum(axis=0), 0) + SLACK**2 * lengths
            steps = along * levels.steps[:, None]
            slack = SLACK * (levels.longest * np.sqrt(lengths) / scale + np.abs(biases))
            base = (mean + np.abs(steps).sum(axis=0) / 2) / scale + biases + slack
            yield Slopes(
                along=(steps / scale).astype(np.float32),
                across=(np.sqrt(outside) / scale).astype(np.float32),
                base=base.astype(np.float32),
            )


def build_levels(states: NDArray[np.float32], tracks: NDArray[np.int64]) -> Levels:
    """Make the levels of a part.

    Args:
        states: (N, C) finite, N >= 1.
        tracks: (N,) the object that a row follows; 0: none is known.
    """
    mean = states.mean(axis=0, dtype=np.float64)
    centred = states - mean.astype(np.float32)
    mean = mean.astype(np.float32).astype(np.float64)
    directions = _directions(centred)  # (k, C)
    along = centred @ directions.T.astype(np.float32)  # (N, k)
    order, first = _segments(along, tracks)
    steps = np.maximum(np.abs(along).max(axis=0).astype(np.float64) / 127, 1e-30)
    codes = np.rint(along / steps).astype(np.int8)[order]
    longest = np.sqrt((states.astype(np.float64) ** 2).sum(axis=1).max())
    rest = np.linalg.norm(centred - along @ directions.astype(np.float32), axis=1)
    # float16 has 11 bits: one more unit of it covers its own rounding, the slack that of `rest`.
    rest = np.nextafter(rest.astype(np.float16), np.float16(np.inf))[order]
    starts = first[:-1]
    return Levels(
        mean=mean,
        directions=directions,
        steps=steps,
        longest=np.asarray(longest),
        first=first,
        low=np.minimum.reduceat(codes, starts),
        high=np.maximum.reduceat(codes, starts),
        farthest=np.maximum.reduceat(rest, starts),
        order=order,
        codes=codes,
        rest=rest,
    )


def _directions(centred: NDArray[np.float32]) -> NDArray[np.float64]:
    """(k, C) principal directions of a sample of rows, at most `DIRECTIONS`."""
    sample = centred[:: -(-len(centred) // _SAMPLE)].astype(np.float64)
    _, vectors = np.linalg.eigh(sample.T @ sample)  # ascending
    return np.ascontiguousarray(vectors.T[::-1][:DIRECTIONS])


def _segments(
    along: NDArray[np.float32], tracks: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rows in segments: (N,) their order, (S + 1,) where each segment begins."""
    alone = np.flatnonzero(tracks == 0)
    followed = np.argsort(tracks, kind="stable")[len(alone) :]
    ids = tracks[followed]
    rank = np.arange(len(ids)) - np.searchsorted(ids, ids)  # in its track
    lengths = np.diff(np.flatnonzero(rank % SEGMENT == 0), append=len(ids))
    leaves = list(_leaves(along, alone))
    order = np.concatenate([followed, *leaves])
    ends = np.cumsum(np.concatenate([lengths, [len(leaf) for leaf in leaves]]))
    return order.astype(np.int32), np.concatenate([[0], ends]).astype(np.int32)


def _leaves(along: NDArray[np.float32], rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Rows that are alike: halved along the widest direction until each part is a segment."""
    stack = [rows] if len(rows) else []
    while stack:
        part = stack.pop()
        if len(part) <= SEGMENT:
            yield part
            continue
        values = along[part]
        widest = int(np.ptp(values, axis=0).argmax())
        halves = np.argpartition(values[:, widest], len(part) // 2)
        stack += [part[halves[len(part) // 2 :]], part[halves[: len(part) // 2]]]
