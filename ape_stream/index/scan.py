"""Every row that reaches a threshold, with its exact logit: bounds first, states of the few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from ape_stream.index.alignment import fixed_point, logits_of, scores_of
from ape_stream.index.levels import SLACK, Directions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_stream.index.alignment import Head
    from ape_stream.index.levels import Levels

__all__ = ["Hits", "Scanner", "States", "Words", "logit_floor"]

_EPS: Final = 2.0**-22
"""Two roundings of a float32."""
_DENSE: Final = 24
"""A product of matrices takes so many times less for a pair than one by one."""
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
        asked = _Asked(words, self._head)
        slopes = self._directions.slopes(words.vectors, words.biases)
        found = zip(self._parts, self._levels, slopes, strict=True)
        return [
            self._hits(part, levels.candidates(slope, asked.floor), asked, float(levels.longest))
            for part, levels, slope in found
        ]

    def _hits(self, part: States, pairs: _Pairs, asked: _Asked, longest: float) -> Hits:
        rows, columns = pairs
        chunks = [
            self._exact(
                part, rows[first : first + _CHUNK], columns[first : first + _CHUNK], asked, longest
            )
            for first in range(0, len(rows), _CHUNK)
        ]
        if len(chunks) == 1:
            return chunks[0]
        chunks.append(Hits(rows[:0], columns[:0], np.zeros(0, np.float32)))
        rows, columns, logits = (
            np.concatenate([getattr(chunk, name) for chunk in chunks])
            for name in ("rows", "words", "logits")
        )
        return Hits(rows, columns, logits)

    def _exact(
        self,
        part: States,
        rows: NDArray[np.intp],
        columns: NDArray[np.intp],
        asked: _Asked,
        longest: float,
    ) -> Hits:
        """Those of some pairs, by row, that reach their threshold."""
        head, words = self._head, asked.words
        # A row is read once, for all its words.
        change = np.diff(rows, prepend=-1) != 0
        states, own = part.states(rows[change]), np.cumsum(change) - 1  # (U, C), (H,)
        # Fixed point takes three times as long as this product, and most candidates end here.
        slack = SLACK * (np.float32(longest) * asked.lengths + np.abs(words.biases))
        floor = asked.floor - words.biases - slack  # (P,)
        near = np.flatnonzero(asked.rough(states, own, columns) >= floor[columns])
        rows, columns, own = rows[near], columns[near], own[near]
        # Sums of fixed point are exact, in any order: equal to a product of matrices.
        wide = fixed_point(states[own], head.width)
        products = np.einsum("hc,hc->h", wide, asked.exact[columns])
        logits = logits_of(products, words.biases[columns], np.float32(head.scale))
        hit = scores_of(logits) >= words.thresholds[columns]
        return Hits(rows[hit], columns[hit], logits[hit])


class _Asked:
    """What a search needs of its words, for all parts."""

    def __init__(self, words: Words, head: Head) -> None:
        self.words = words
        self.floor = logit_floor(words.thresholds)  # (P,)
        self.exact = fixed_point(words.vectors, head.width)  # (P, C)
        self._scaled = words.vectors / np.float32(head.scale)  # (P, C)
        self.lengths = np.linalg.norm(self._scaled, axis=1)  # (P,)

    def rough(
        self, states: NDArray[np.float32], own: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """(H,) products in float32 of pairs: states (U, C), the state and the word of each."""
        count = len(self._scaled)
        if count * len(states) <= _DENSE * len(own):
            products: NDArray[np.float32] = (states @ self._scaled.T)[own, columns]
            return products
        found = np.einsum("hc,hc->h", states[own], self._scaled[columns])
        return np.asarray(found, np.float32)


_Pairs = tuple["NDArray[np.intp]", "NDArray[np.intp]"]
"""(H,) rows, (H,) positions of words."""
