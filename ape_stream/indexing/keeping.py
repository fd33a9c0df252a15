"""Which queries of a frame an index keeps, and what it keeps of the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.errors import UsageError
from ape_stream.index.alignment import as_float32, rounded_states, scores_of
from ape_stream.index.cells import inside_boxes
from ape_stream.index.dropped.bounds import enclose
from ape_stream.index.dropped.coarse import encode_coarse
from ape_stream.indexing.loops import loops
from ape_stream.indexing.packing import packed
from ape_stream.indexing.parts import IndexedFrame
from ape_stream.indexing.survivors import survivors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.index.alignment import Head
    from ape_stream.index.dropped.coarse import CoarseStates
    from ape_stream.indexing.loops import Loops
    from ape_stream.types import Frame
    from ape_stream.values.queries import FrameQueries

__all__ = ["KEEP_ALL", "Keep", "Keeper", "Reference", "keep_of"]

_SPHERES: Final = 8
"""Around the coarse states of a frame, at most, and half as many around what else is dropped."""
_COARSE: Final = 64
"""Most coarse states of a frame, those of the best scores; queries that score less are rare."""
_COARSE_SCORE: Final = 0.02
"""Lowest best score of a reference word of a coarse state."""
_WORDS: Final = 24
"""Words of one product. BLAS takes a thread of each core for larger ones, and where other processes
are busy these wait for one another, spinning: a frame of nano took up to twice the time."""
_LEAD: Final = 0.01
"""Queries that are suppressed by so little are kept, too: other words may take them. A logit."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Which queries are kept; those that are dropped are bounded (decisions/0011)."""

    score: float | None = 0.15
    """Lowest score with which a reference word finds a query that is kept, 0..1; None: every query
    is kept."""
    rows: int | None = 50
    """Most queries of one frame, those of the best scores; None: no limit."""


KEEP_ALL: Final = Keep(None, None)


def keep_of(given: str) -> Keep:
    """What "50" or "all" means.

    Raises:
        UsageError: it is neither a number, at least 1, nor "all".
    """
    if given == "all":
        return KEEP_ALL
    if not given.isdecimal() or int(given) < 1:
        raise UsageError(f"keep is a number of queries, at least 1, or all; not {given!r}")
    return Keep(rows=int(given))


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The P reference words, projected by the head."""

    texts: tuple[str, ...]
    """Clean texts."""
    vectors: NDArray[np.float32]
    """(P, C)."""
    biases: NDArray[np.float32]
    """(P,)."""


class Keeper:
    """Turns the queries of frames into rows of an index.

    Args:
        head: Of the index.
        reference: The words that decide what is kept.
        keep: How they decide.
    """

    def __init__(self, head: Head, reference: Reference, keep: Keep) -> None:
        self._head = head
        self._reference = reference
        self._keep = keep
        lengths = np.linalg.norm(reference.vectors, axis=1)
        self._reach = float(lengths.max() / head.scale)
        self._words = _blocks(reference.vectors / np.float32(head.scale))  # (B, 24, C)

    def frame(self, frame: Frame, queries: FrameQueries) -> IndexedFrame:
        """What the index keeps of a frame."""
        compiled = loops()
        form = rounded_states if compiled is None else compiled.codes
        codes, states = form(as_float32(queries.states))  # (Q, C)
        logits = self._logits(states)  # (P, Q)
        scores = scores_of(logits.max(axis=0))  # (Q,)
        kept, dropped = self._divided(states, logits, queries.boxes, compiled)
        boxes = queries.boxes[kept]
        edges = inside_boxes(boxes, queries.cells, queries.filled, queries.facts.mask_margin)
        masks, drawn = packed(queries.mask_logits(kept), queries.filled, edges, compiled)
        unit = frame.time_base
        return IndexedFrame(
            index=frame.index,
            time_s=frame.time_s,
            pts=frame.pts,
            time_base=None if unit is None else (unit.numerator, unit.denominator),
            file=frame.origin,
            size=frame.size,
            cells=queries.cells,
            filled=queries.filled,
            query=kept.astype(np.int32),
            box=boxes,
            reference=scores[kept],
            exponent=codes.exponent[kept],
            state=codes.code[kept],
            drawn=drawn,
            masks=masks,
            **self._dropped(states, scores, dropped, compiled),
        )

    def _logits(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """(P, Q) of the reference words; what they decide need not be exact."""
        products = self._words @ np.ascontiguousarray(states.T)  # (B, 24, Q)
        logits: NDArray[np.float32] = products.reshape(-1, len(states))[
            : len(self._reference.texts)
        ]
        logits += self._reference.biases[:, None]
        return logits

    def _divided(
        self,
        states: NDArray[np.float32],
        logits: NDArray[np.float32],
        boxes: NDArray[np.float32],
        compiled: Loops | None,
    ) -> tuple[NDArray[np.intp], _Dropped]:
        """Numbers of the queries that are kept, rising, and the others next to them."""
        found, lead = self._found(logits, boxes, compiled)
        rest = np.flatnonzero(~_members(found, len(states)))
        if not len(found) or not len(rest):
            return found, _Dropped(rest, None)
        form = None if compiled is None else compiled.differences
        coarse = encode_coarse(states[rest], boxes[rest], states[found], form)
        # A coarse state may seem to win where its own does not: such a query is kept, too.
        unsure = np.flatnonzero(lead[rest] <= _LEAD + 2 * self._reach * coarse.error)
        room = len(states) if self._keep.rows is None else self._keep.rows - len(found)
        unsure = unsure[np.argsort(lead[rest[unsure]], kind="stable")[:room]]
        kept = np.sort(np.concatenate([found, rest[unsure]]))
        left = np.flatnonzero(~_members(unsure, len(rest)))
        # Still next to one of `found`: that difference decided.
        base = np.searchsorted(kept, found)[coarse.base[left]].astype(np.uint16)
        return kept, _Dropped(rest[left], replace(coarse.take(left), base=base))

    def _found(
        self, logits: NDArray[np.float32], boxes: NDArray[np.float32], compiled: Loops | None
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Queries that reference words find, rising; and (Q,) by how little others miss it."""
        count = len(boxes)
        most = count if self._keep.rows is None else self._keep.rows
        if self._keep.score is None:
            found = np.sort(np.argsort(-logits.max(axis=0), kind="stable")[:most])
            return found, np.full(count, np.inf, np.float32)
        floor = float(np.log(self._keep.score / (1 - self._keep.score)))
        best, lead = survivors(logits, boxes, floor, compiled)
        found = np.flatnonzero(np.isfinite(best) | (lead <= _LEAD))
        if len(found) > most:
            rank = np.where(np.isfinite(best), best, logits.max(axis=0))
            found = np.sort(found[np.argsort(-rank[found], kind="stable")[:most]])
        return found, lead

    def _dropped(
        self,
        states: NDArray[np.float32],
        scores: NDArray[np.float32],
        dropped: _Dropped,
        compiled: Loops | None,
    ) -> dict[str, Any]:
        """What is kept of the queries that are not: fields of `IndexedFrame`."""
        order = np.argsort(-scores[dropped.queries], kind="stable")
        queries = dropped.queries[order]
        count = min(_COARSE, int((scores[queries] >= _COARSE_SCORE).sum()))
        if dropped.coarse is None:
            count = 0
        form = None if compiled is None else compiled.nearest_of_far
        inner = enclose(states[queries[:count]], self._head.basis, _SPHERES, form)
        outer = enclose(states[queries[count:]], self._head.basis, _SPHERES // 2, form)
        coarse = b""
        if dropped.coarse is not None:
            by_sphere = order[:count][np.argsort(inner.owner, kind="stable")]
            coarse = dropped.coarse.take(by_sphere).to_bytes()
        members = np.bincount(inner.owner, minlength=len(inner.radius) + len(outer.radius))
        return {
            "dropped": len(queries),
            "centre": np.concatenate([inner.centre, outer.centre]),
            "radius": np.concatenate([inner.radius, outer.radius]),
            "remainder": np.concatenate([inner.remainder, outer.remainder]),
            "members": members.astype(np.int32),
            "coarse": np.frombuffer(coarse, np.uint8),
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Dropped:
    """M queries of a frame that are not kept."""

    queries: NDArray[np.intp]
    """(M,) their numbers."""
    coarse: CoarseStates | None
    """The same; None where no query is kept."""


def _members(numbers: NDArray[np.intp], count: int) -> NDArray[np.bool_]:
    """(count,) which numbers are among some."""
    found = np.zeros(count, np.bool_)
    found[numbers] = True
    return found


def _blocks(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P, C) vectors in blocks of `_WORDS`; those of zeros fill the last one."""
    count, width = vectors.shape
    blocks = np.zeros((-(-count // _WORDS), _WORDS, width), np.float32)
    blocks.reshape(-1, width)[:count] = vectors
    return blocks
