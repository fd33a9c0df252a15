"""Every row that reaches a threshold, with its exact logit: bounds first, states of the few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from ape_stream.index.alignment import fixed_point, logits_of, scores_of
from ape_stream.index.levels import SLACK, Directions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ape_stream.index.alignment import Head
    from ape_stream.index.levels import Levels

__all__ = ["Hits", "Scanner", "States", "Words", "logit_floor"]

_EPS: Final = 2.0**-22
"""Two roundings of a float32."""
_CHUNK: Final = 8192
"""Pairs whose states are in memory at once."""


class States(Protocol):
    """Rows of a part that can be read."""

    def states(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """The (n, C) states of some rows."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """P texts, projected by the head of an index, and how high each must score."""

    vectors: NDArray[np.float32]
    """(P, C)."""
    biases: NDArray[np.float32]
    """(P,)."""
    thresholds: NDArray[np.float32]
    """(P,) lowest score, 0..1."""


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Pairs of a row and a word, by row and then by word."""

    rows: NDArray[np.intp]
    """(H,) rows of the part."""
    words: NDArray[np.intp]
    """(H,) positions of words."""
    logits: NDArray[np.float32]
    """(H,) exact."""

    def after(self, words: int) -> Hits:
        """The same where so many words come before."""
        return Hits(self.rows, self.words + words, self.logits)


def logit_floor(thresholds: NDArray[np.float32]) -> NDArray[np.float32]:
    """(P,) logits below which no score reaches the threshold, however both are rounded."""
    least = thresholds.astype(np.float64) * (1 - _EPS)
    with np.errstate(divide="ignore"):  # a threshold of 0 takes every row
        floor = np.log(least) - np.log1p(-least)
    lowest: NDArray[np.float32] = (floor - np.abs(floor) * _EPS).astype(np.float32)
    return lowest


class Scanner:
    """Searches the rows of many parts.

    Args:
        parts: Where states are read.
        levels: Of each part.
        head: Of the index.
    """

    def __init__(self, parts: Sequence[States], levels: Sequence[Levels], head: Head) -> None:
        self._parts = parts
        self._levels = levels
        self._head = head
        self._directions = Directions(levels, head)

    def search(self, words: Words) -> list[Hits]:
        """Find all rows whose score of a word reaches its threshold, for each part.

        Equal to the exact logits of all rows, compared with the thresholds one by one.
        """
        floor = logit_floor(words.thresholds)
        slopes = self._directions.slopes(words.vectors, words.biases)
        found = zip(self._parts, self._levels, slopes, strict=True)
        return [
            self._hits(part, _pairs_of(levels.candidates(slope, floor)), words)
            for part, levels, slope in found
        ]

    def _hits(self, part: States, pairs: _Pairs, words: Words) -> Hits:
        chunks = [
            self._exact(
                part, pairs[0][first : first + _CHUNK], pairs[1][first : first + _CHUNK], words
            )
            for first in range(0, max(1, len(pairs[0])), _CHUNK)
        ]
        if len(chunks) == 1:
            return chunks[0]
        rows, columns, logits = (
            np.concatenate([getattr(chunk, name) for chunk in chunks])
            for name in ("rows", "words", "logits")
        )
        return Hits(rows, columns, logits)

    def _exact(
        self, part: States, rows: NDArray[np.intp], columns: NDArray[np.intp], words: Words
    ) -> Hits:
        """Those of some pairs that reach their threshold."""
        head, vectors = self._head, words.vectors[columns]  # (H, C)
        states, biases = part.states(rows), words.biases[columns]
        rough = np.einsum("hc,hc->h", states, vectors) / np.float32(head.scale) + biases
        # Fixed point takes three times as long as this product, and most candidates end here.
        lengths = np.linalg.norm(states, axis=1) * np.linalg.norm(words.vectors, axis=1)[columns]
        slack = SLACK * (lengths / np.float32(head.scale) + np.abs(biases))
        near = np.flatnonzero(rough + slack >= logit_floor(words.thresholds)[columns])
        rows, columns = rows[near], columns[near]
        # Sums of fixed point are exact, in any order: equal to a product of matrices.
        wide = fixed_point(states[near], head.width)
        products = np.einsum("hc,hc->h", wide, fixed_point(vectors[near], head.width))
        logits = logits_of(products, biases[near], np.float32(head.scale))
        hit = scores_of(logits) >= words.thresholds[columns]
        return Hits(rows[hit], columns[hit], logits[hit])


_Pairs = tuple["NDArray[np.intp]", "NDArray[np.intp]"]
"""(H,) rows, (H,) positions of words."""


def _pairs_of(candidates: Iterable[tuple[int, NDArray[np.int32]]]) -> _Pairs:
    """By row, then by word."""
    found = list(candidates)
    if not found:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    rows = np.concatenate([rows for _, rows in found]).astype(np.intp)
    columns = np.repeat([word for word, _ in found], [len(rows) for _, rows in found])
    order = np.lexsort((columns, rows))
    return rows[order], columns[order]
