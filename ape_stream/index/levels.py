"""Small bounds of many states, so that a search reads few of the states themselves.

A state h is written as h = m + U'(q s) + e: the mean m of its part, its coordinates along the k
directions U in which states vary most, as 8-bit codes q of step s, and a rest e. Of the rest a
middle c is kept, which up to 32 rows that follow one object share (a segment), and of each row the
length of what codes and middle leave. For a text vector t that gives

    h t <= m t + sum_j q_j s_j (U t)_j + c t + |h - m - U'(q s) - c| |t|

for k + 2 bytes of a row in place of 2 C. A segment has the lowest and the highest code of each
coordinate; its bound takes the one or the other by the sign of (U t)_j. Boxes along these
directions are much tighter than balls: states of one object change along few directions, and those
are not the ones in which words differ. A search looks at all segments without their middles, then
at the middles of those that are left, then at the rows of those that are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ape_stream.index.alignment import Head
    from ape_stream.index.kernels import Kernels

__all__ = [
    "Directions",
    "Levels",
    "Slopes",
    "build_levels",
    "distinct",
    "product",
    "products_of_pairs",
]

DIRECTIONS: Final = 32
"""k: of nano's 128 they hold 98.6 % of the variance between states."""
SEGMENT: Final = 32
"""Most rows of a segment."""
_SAMPLE: Final = 16_384
"""Most rows that decide the directions."""
_DENSE: Final = 24
"""A product of matrices takes so many times less for a pair than one by one."""
_BLAS_ALONE: Final = 2**18
"""Most multiplications of a product of matrices that OpenBLAS computes on one thread."""
_BLAS_VECTOR_ALONE: Final = 2**13
"""The same of a matrix with one vector."""
_PAIRS: Final = 16_384
"""Open segments whose rows are looked at together: 67 MB of codes as float32."""
SLACK: Final = 2.0**-14
"""Above every rounding error of a bound, in parts of |h| |t|: of products in 32 bits, of directions
that are orthonormal up to 1e-7, and of the fixed point of exact scores (2^-17 at C = 256)."""


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """P words as a part's levels see them; everything is divided by the scale of the head."""

    texts: NDArray[np.float32]
    """(C, P) of a middle: t."""
    lengths: NDArray[np.float32]
    """(P,) of what neither codes nor a middle hold: |t|."""
    boxes: NDArray[np.float32]
    """(2 k + 1, P) of a row of `Levels.boxes`: s_j (U t)_j, its size, and |t'|."""
    base: NDArray[np.float32]
    """(P,) of every row: m t, the bias, and the slack."""
    half: NDArray[np.float32]
    """(P,) of a segment without its middle: half a step of each code."""


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
    longest_rest: NDArray[np.float16]
    """(S,) the largest |e| of a segment."""
    middle: NDArray[np.int8]
    """(S, C) c as codes."""
    middle_step: NDArray[np.float32]
    """(S,) of these codes."""
    spread: NDArray[np.float16]
    """(S,) the largest `rest` of a segment."""
    order: NDArray[np.int32]
    """(N,) the row in the part."""
    codes: NDArray[np.int8]
    """(N, k) q, in this order."""
    rest: NDArray[np.float16]
    """(N,) |h - m - U'(q s) - c|, rounded up, in this order."""

    @property
    def rows(self) -> int:
        """N."""
        return len(self.order)

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """(S, 2 k + 1) middle and half width of each segment's codes, and its longest rest."""
        low, high = self.low.astype(np.float32), self.high.astype(np.float32)
        longest = self.longest_rest.astype(np.float32)[:, None]
        return np.concatenate([(low + high) / 2, (high - low) / 2, longest], axis=1)

    @np.errstate(invalid="ignore")  # a rest that is infinite: its segment is looked at
    def candidates(
        self, slopes: Slopes, floor: NDArray[np.float32], compiled: Kernels | None = None
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Pairs of a row and a word whose logit may reach the word's floor.

        Args:
            slopes: Of P words, from `Directions.slopes`.
            floor: (P,) logits.
            compiled: Loops in place of NumPy's.

        Returns:
            (H,) rows of the part and (H,) positions of words, by row and then by word: every pair
            that reaches its floor, and few others.
        """
        needed = floor - slopes.base
        highest = product(self.boxes, slopes.boxes)  # (S, P)
        # What is no number is looked at, too. A flat search takes a third of the time.
        flat = np.flatnonzero(~(highest < needed - slopes.half))
        segments, words = np.divmod(flat, len(needed))
        if not len(flat):
            return segments, words
        bounds = highest.ravel()[flat]
        form = self._near if compiled is None else partial(self._loop, compiled)
        slices = [slice(first, first + _PAIRS) for first in range(0, len(flat), _PAIRS)]
        found = [form((segments[s], words[s], bounds[s], needed), slopes) for s in slices]
        rows, columns = np.divmod(np.sort(np.concatenate(found)), len(needed))
        return rows, columns

    def _near(self, opened: _Opened, slopes: Slopes) -> NDArray[np.int64]:
        """Row * P + word of the rows of open segments that may reach their floor."""
        segments, words, needed = self._middles(opened, slopes)
        # The rows of each segment that is left; a short one repeats its last row.
        at = self.first[segments, None] + np.arange(SEGMENT)  # (O, 32)
        exists = at < self.first[segments + 1, None]
        np.minimum(at, self.first[segments + 1, None] - 1, out=at)
        along = slopes.boxes[: len(self.steps)].T  # (P, k)
        codes = self.codes[at].astype(np.float32)  # (O, 32, k)
        bound = np.matmul(codes, along[words][:, :, None])[:, :, 0]
        bound += self.rest[at].astype(np.float32) * slopes.lengths[words][:, None]
        near = exists & ~(bound < needed[:, None])
        rows = self.order[at[near]].astype(np.int64)  # (H,)
        keys: NDArray[np.int64] = rows * len(slopes.lengths) + np.repeat(words, near.sum(axis=1))
        return keys

    def _middles(
        self, opened: _Opened, slopes: Slopes
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        """Segments and words that are left with their middles, and what a row needs beyond c."""
        segments, words, highest, needed = opened
        some, own = distinct(segments)
        middles = products_of_pairs(self.middle[some].astype(np.float32), own, slopes.texts, words)
        middles *= self.middle_step[segments]
        rest = self.spread[segments].astype(np.float32) * slopes.lengths[words]
        rest -= self.longest_rest[segments].astype(np.float32) * slopes.boxes[-1, words]
        left = needed[words] - middles  # (O,)
        near = ~(highest + rest < left)
        return segments[near], words[near], left[near]

    def _loop(self, compiled: Kernels, opened: _Opened, slopes: Slopes) -> NDArray[np.int64]:
        """As `_near`."""
        arrays = (self.first, self.middle, self.middle_step, self.spread, self.longest_rest,
                  self.codes, self.rest, self.order)  # fmt: skip
        along = slopes.boxes[: len(self.steps)].T  # (P, k)
        texts = (slopes.texts.T, slopes.lengths, along, slopes.boxes[-1], opened[3])
        keys = np.empty(SEGMENT * len(opened[0]), np.int64)
        return keys[: compiled.candidates(arrays, texts, opened[:3], keys)]


def product(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """(N, K) times (K, P), in blocks that BLAS computes on this thread alone.

    For larger products it takes a thread of each core, which then wait for the next one, spinning:
    while other threads search other parts, these only take their time.
    """
    (count, inner), columns = left.shape, right.shape[1]
    most = _BLAS_VECTOR_ALONE if columns == 1 else _BLAS_ALONE
    rows = max(1, most // (inner * columns))
    whole = count - count % rows
    found = np.empty((count, columns), left.dtype)
    blocks = found[:whole].reshape(-1, rows, columns)
    np.matmul(left[:whole].reshape(-1, rows, inner), right, out=blocks)
    np.matmul(left[whole:], right, out=found[whole:])
    return found


def products_of_pairs(
    left: NDArray[np.float32],
    own: NDArray[np.intp],
    right: NDArray[np.float32],
    columns: NDArray[np.intp],
) -> NDArray[np.float32]:
    """Products of some pairs of vectors.

    Args:
        left: (U, C).
        own: (H,) which of these.
        right: (C, P).
        columns: (H,) which of these.
    """
    if right.shape[1] * len(left) <= _DENSE * len(own):
        products: NDArray[np.float32] = (left @ right)[own, columns]
        return products
    found = np.einsum("hc,hc->h", left[own], right.T[columns])
    return np.asarray(found, np.float32)


def distinct(rising: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The distinct numbers among some that rise, and which of them each one is."""
    change = np.empty(len(rising), np.bool_)
    change[:1] = True
    np.not_equal(rising[1:], rising[:-1], out=change[1:])
    return rising[change], np.cumsum(change) - 1


class Directions:
    """The means and directions of many levels as one array: words are projected on all at once.

    Args:
        levels: Of L parts.
        head: Of the index.
    """

    def __init__(self, levels: Sequence[Levels], head: Head) -> None:
        # k varies: an index of few rows has fewer directions; those it has not are zeros.
        self._counts = [len(one.steps) for one in levels]
        most = max(self._counts, default=0)
        self._frames = np.zeros((len(levels), most + 1, head.width))  # the mean comes last
        self._steps = np.zeros((len(levels), most, 1))
        for own, step, one in zip(self._frames, self._steps, levels, strict=True):
            own[: len(one.steps)], own[-1] = one.directions, one.mean
            step[: len(one.steps), 0] = one.steps
        self._longest = np.array([float(one.longest) for one in levels])[:, None]
        self._scale = np.float64(head.scale)

    def slopes(
        self, vectors: NDArray[np.float32], biases: NDArray[np.float32]
    ) -> Callable[[int], Slopes]:
        """What the bounds of P words, projected by the head, are made of, by the part's number.

        Made for each part when it is searched, they are in the cache then.
        """
        wide = vectors.astype(np.float64)  # (P, C)
        squares = np.square(wide).sum(axis=1)  # (P,)
        lengths = np.sqrt(squares)
        parts, most = self._steps.shape[:2]
        products = product(self._frames.reshape(-1, wide.shape[1]), wide.T)
        products = products.reshape(parts, most + 1, len(wide))  # (L, k + 1, P)
        along, mean = products[:, :-1], products[:, -1]
        # By Pythagoras; what cancels is added back, so that it is an upper bound.
        outside = np.maximum(squares - np.square(along).sum(axis=1), 0) + SLACK**2 * squares
        steps = along * self._steps
        sizes = np.abs(steps)
        slack = SLACK * (self._longest * lengths / self._scale + np.abs(biases))
        base = (mean / self._scale + biases + slack).astype(np.float32)  # (L, P)
        half = (sizes.sum(axis=1) / 2 / self._scale).astype(np.float32)  # (L, P)
        boxes = np.concatenate([steps, sizes, np.sqrt(outside)[:, None]], axis=1) / self._scale
        texts = (wide.T / self._scale).astype(np.float32)
        whole = (lengths / self._scale).astype(np.float32)

        def of_part(number: int) -> Slopes:
            own, count = boxes[number], self._counts[number]
            if count < most:
                own = np.concatenate([own[:count], own[most : most + count], own[-1:]])
            return Slopes(texts, whole, own.astype(np.float32), base[number], half[number])

        return of_part


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
    rests = (centred - along @ directions.astype(np.float32))[order]  # (N, C)
    starts = first[:-1]
    middle, middle_step = _middles(rests, first)
    longest_rest = np.maximum.reduceat(_rounded_up(np.linalg.norm(rests, axis=1)), starts)
    middles = middle * middle_step[:, None]
    rests -= np.repeat(middles, np.diff(first), axis=0)
    rests += (along[order] - codes * steps.astype(np.float32)) @ directions.astype(np.float32)
    rest = _rounded_up(np.linalg.norm(rests, axis=1))
    return Levels(
        mean=mean,
        directions=directions,
        steps=steps,
        longest=np.asarray(longest),
        first=first,
        low=np.minimum.reduceat(codes, starts),
        high=np.maximum.reduceat(codes, starts),
        longest_rest=longest_rest,
        middle=middle,
        middle_step=middle_step,
        spread=np.maximum.reduceat(rest, starts),
        order=order,
        codes=codes,
        rest=rest,
    )


def _middles(
    rests: NDArray[np.float32], first: NDArray[np.int32]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The mean rest of each segment: codes (S, C) and their steps (S,)."""
    means = np.add.reduceat(rests, first[:-1]) / np.diff(first)[:, None].astype(np.float32)
    steps = np.maximum(np.abs(means).max(axis=1) / np.float32(127), np.float32(1e-30))
    return np.rint(means / steps[:, None]).astype(np.int8), steps


def _rounded_up(lengths: NDArray[np.float32]) -> NDArray[np.float16]:
    """One more unit of float16 covers its own rounding, the slack that of the lengths."""
    with np.errstate(over="ignore"):  # what is too long for it is infinite, and always looked at
        return np.nextafter(lengths.astype(np.float16), np.float16(np.inf))


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


_Opened = tuple[
    "NDArray[np.intp]", "NDArray[np.intp]", "NDArray[np.float32]", "NDArray[np.float32]"
]
"""(O,) open segments and (O,) words, (O,) their bounds without middles; (P,) what words need."""
