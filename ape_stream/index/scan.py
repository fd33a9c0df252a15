"""Every row that reaches a threshold, with its exact logit: bounds first, states of the few."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from ape_stream.index.alignment import fixed_point, logits_of, scores_of
from ape_stream.index.kernels import kernels
from ape_stream.index.levels import SLACK, Directions, distinct, products_of_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ape_stream.index.alignment import Codes, Head
    from ape_stream.index.kernels import Kernels
    from ape_stream.index.levels import Levels, Slopes

__all__ = ["Hits", "Scanner", "States", "Words", "logit_floor"]

_EPS: Final = 2.0**-22
"""Two roundings of a float32."""
_MANY_WORDS: Final = 4
"""The product of all states with all words takes so many times less for a pair than by word."""
_FEW_WORDS: Final = 4
"""Fewer are searched sooner by one thread: most of their time is Python's, which has one lock."""
_CHUNK: Final = 256
"""Pairs whose states are in memory at once: so few that all steps find them in a cache."""


class States(Protocol):
    """Rows of a part that can be read."""

    def states(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """The (n, C) states of some rows."""
        ...

    def stored(self, rows: NDArray[np.intp]) -> Codes:
        """The states of all rows as they are stored, of which some will be read."""
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
        self._starts = np.cumsum([0, *(one.rows for one in levels)])  # (L + 1,)
        self._longest = max((float(one.longest) for one in levels), default=0.0)

    def search(self, words: Words) -> list[Hits]:
        """Find all rows whose score of a word reaches its threshold, for each part.

        Equal to the exact logits of all rows, compared with the thresholds one by one.
        """
        asked = _Asked(words, self._head, self._longest)
        slopes = self._directions.slopes(words.vectors, words.biases)
        compiled = kernels()
        if compiled is not None:
            return self._each_compiled(asked, compiled, slopes)
        pairs = [
            levels.candidates(slopes(number), asked.floor)
            for number, levels in enumerate(self._levels)
        ]
        if not pairs:
            return []
        # From here on rows are counted through all parts: a step takes those of many parts.
        rows = np.concatenate([own + self._starts[k] for k, (own, _) in enumerate(pairs)])
        columns = np.concatenate([own for _, own in pairs])
        chunks = [
            self._exact(rows[first : first + _CHUNK], columns[first : first + _CHUNK], asked)
            for first in range(0, len(rows), _CHUNK)
        ]
        return self._by_part(chunks)

    def _each_compiled(
        self, asked: _Asked, compiled: Kernels, slopes: Callable[[int], Slopes]
    ) -> list[Hits]:
        """Search all parts; for many words a thread of each core takes a share of them."""
        count = len(self._parts)
        threads = (os.cpu_count() or 1) if len(asked.floor) > _FEW_WORDS else 1
        share = max(1, -(-count // threads))

        def search(first: int) -> list[Hits]:
            return [
                self._compiled(asked, compiled, number, slopes(number))
                for number in range(first, min(first + share, count))
            ]

        firsts = range(0, count, share)
        if len(firsts) < 2:
            return search(0)
        with ThreadPoolExecutor(len(firsts)) as pool:
            return [hits for found in pool.map(search, firsts) for hits in found]

    def _compiled(self, asked: _Asked, compiled: Kernels, number: int, slopes: Slopes) -> Hits:
        """The rows of one part that reach a threshold."""
        rows, columns = self._levels[number].candidates(slopes, asked.floor, compiled)
        if not len(rows):
            return Hits(rows, columns, np.zeros(0, np.float32))
        stored = self._parts[number].stored(rows)
        products, near = compiled.products(stored, rows, asked.exact, columns, asked.least)
        return Hits(*self._reached(products, rows[near], columns[near], asked))

    def _reached(
        self,
        products: NDArray[np.float64],
        rows: NDArray[np.intp],
        columns: NDArray[np.intp],
        asked: _Asked,
    ) -> _Found:
        words = asked.words
        logits = logits_of(products, words.biases[columns], np.float32(self._head.scale))
        hit = scores_of(logits) >= words.thresholds[columns]
        return rows[hit], columns[hit], logits[hit]

    def _exact(self, rows: NDArray[np.intp], columns: NDArray[np.intp], asked: _Asked) -> _Found:
        """Those of some pairs, by row, that reach their threshold, and their logits."""
        # A row is read once, for all its words.
        some, own = distinct(rows)
        states = self._states(some)  # (U, C)
        # A product in float64 takes twice as long as this one.
        rough = products_of_pairs(states, own, asked.scaled, columns)
        near = np.flatnonzero(rough >= asked.rough_floor[columns])
        rows, columns, own = rows[near], columns[near], own[near]
        products = self._products(states, own, asked, columns)
        return self._reached(products, rows, columns, asked)

    def _products(
        self,
        states: NDArray[np.float32],
        own: NDArray[np.intp],
        asked: _Asked,
        columns: NDArray[np.intp],
    ) -> NDArray[np.float64]:
        """(H,) of pairs: states are in fixed point, whose sums are exact in any order and shape."""
        if len(asked.exact) * len(states) <= _MANY_WORDS * len(own):
            return (states.astype(np.float64) @ asked.exact.T)[own, columns]
        # Word by word: a product of a matrix with one vector reads its numbers once.
        order = np.argsort(columns, kind="stable")
        wide = states[own[order]].astype(np.float64)
        borders = np.flatnonzero(np.diff(columns[order], prepend=-1, append=-1))
        products = np.empty(len(own))
        for low, high in pairwise(borders.tolist()):
            some = order[low:high]
            products[some] = wide[low:high] @ asked.exact[columns[some[0]]]
        return products

    def _states(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(U, C) of rows that rise, through all parts."""
        first, last = np.searchsorted(self._starts, rows[[0, -1]], side="right").tolist()
        borders = np.searchsorted(rows, self._starts[first - 1 : last + 1]).tolist()
        return np.concatenate(
            [
                self._parts[number].states(rows[low:high] - self._starts[number])
                for number, (low, high) in enumerate(pairwise(borders), start=first - 1)
                if low < high
            ]
        )

    def _by_part(self, chunks: list[_Found]) -> list[Hits]:
        none = np.zeros(0, np.intp)
        rows, columns, logits = map(
            np.concatenate, zip(*chunks, (none, none, np.zeros(0, np.float32)), strict=True)
        )
        borders = np.searchsorted(rows, self._starts).tolist()
        return [
            Hits(rows[low:high] - self._starts[k], columns[low:high], logits[low:high])
            for k, (low, high) in enumerate(pairwise(borders))
        ]


class _Asked:
    """What a search needs of its words, for all parts."""

    def __init__(self, words: Words, head: Head, longest: float) -> None:
        self.words = words
        self.floor = logit_floor(words.thresholds)  # (P,)
        self.exact = fixed_point(words.vectors, head.width)  # (P, C)
        self.scaled = words.vectors.T / np.float32(head.scale)  # (C, P)
        lengths = np.linalg.norm(self.scaled, axis=0)
        slack = SLACK * (np.float32(longest) * lengths + np.abs(words.biases))
        self.rough_floor = self.floor - words.biases - slack
        """(P,) of products in float32."""
        biases = words.biases.astype(np.float64)
        size = np.abs(self.floor) + np.abs(biases)
        self.least = (self.floor - biases - _EPS * size) * np.float64(head.scale)
        """(P,) of exact products."""


_Found = tuple["NDArray[np.intp]", "NDArray[np.intp]", "NDArray[np.float32]"]
"""(H,) rows through all parts, (H,) positions of words, (H,) logits."""
