"""Which queries of a frame an index keeps, and what it keeps of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ape_stream.errors import UsageError
from ape_stream.index.alignment import scores_of
from ape_stream.index.bounds import enclose
from ape_stream.index.cells import inside_boxes, pack_cells
from ape_stream.index.part import as_float32
from ape_stream.indexing.parts import IndexedFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.index.alignment import Head
    from ape_stream.types import Frame
    from ape_stream.values.queries import FrameQueries

__all__ = ["KEEP_ALL", "Keep", "Keeper", "Reference", "keep_of"]

SPHERES: Final = 12
"""Around what is dropped of a frame, at most: 1.6 KB of it."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Which queries are kept; those that are dropped are bounded (decisions/0009)."""

    score: float | None = 0.3
    """Lowest best score of a reference word, 0..1; None: every query is kept."""
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

    def frame(self, frame: Frame, queries: FrameQueries) -> IndexedFrame:
        """What the index keeps of a frame."""
        states = as_float32(queries.states)  # (Q, C)
        scores = self._scores(states)  # (Q,)
        kept = self._kept(scores)  # (K,) rising
        dropped = np.setdiff1d(np.arange(len(scores)), kept)
        boxes = queries.boxes[kept]
        edges = inside_boxes(boxes, queries.cells, queries.filled, queries.facts.mask_margin)
        masks = pack_cells(queries.mask_logits(kept), edges) if len(kept) else []
        centre, radius, remainder = enclose(states[dropped], self._head.basis, SPHERES)
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
            state=queries.states[kept],
            masks=masks,
            dropped=len(dropped),
            centre=centre,
            radius=radius,
            remainder=remainder,
        )

    def _scores(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """(Q,) the best score of a reference word; what it decides need not be exact."""
        words = self._reference
        logits = states @ words.vectors.T / np.float32(self._head.scale) + words.biases  # (Q, P)
        return scores_of(logits.max(axis=1))

    def _kept(self, scores: NDArray[np.float32]) -> NDArray[np.intp]:
        """Numbers of the queries that are kept, rising."""
        kept = np.arange(len(scores))
        if self._keep.score is not None:
            kept = np.flatnonzero(scores >= self._keep.score)
        if self._keep.rows is not None and len(kept) > self._keep.rows:
            best = np.argsort(-scores[kept], kind="stable")[: self._keep.rows]
            kept = np.sort(kept[best])
        return kept
