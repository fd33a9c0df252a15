"""`ape-stream bench index`: how long a search of many rows takes, against reading all of them.

The states are made up, with the statistics of those that nano has of drawn videos: one length (12),
a mean of length 5.6, a spectrum that leaves 1.4 % of the variance outside of 32 directions, and a
change of 6 % from frame to frame. One row in some 3,000 reaches the threshold of a word.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import typer

from ape_stream.index.alignment import Head, scores_of
from ape_stream.index.levels import SEGMENT, build_levels
from ape_stream.index.scan import Scanner, Words

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["MadeUpRows", "index_benchmark"]

PART: Final = 51_200
"""Rows of a part: 1,024 frames of 50."""
_SCALE: Final = 0.56
_KINDS: Final = 170
_HITS: Final = 1 / 3000


class MadeUpRows:
    """Parts of made-up states.

    Args:
        rows: How many, rounded up to whole parts.
        width: C.
    """

    def __init__(self, rows: int, width: int) -> None:
        self._rng = np.random.default_rng(0)
        decay = np.exp(-np.arange(width) / 5.2) + 2e-4
        self._spread = 10.4 * np.sqrt(decay / decay.sum())  # (C,)
        self._turn = np.linalg.qr(self._rng.standard_normal((width, width)))[0]
        self._mean = self._rng.standard_normal(width)
        self._mean *= 5.6 / np.linalg.norm(self._mean)
        self._kinds = self._rng.standard_normal((_KINDS, width)) * self._spread
        self.parts = [self._part() for _ in range(-(-rows // PART))]
        self.tracks = 1 + np.arange(PART, dtype=np.int64) // (2 * SEGMENT)

    def _part(self) -> NDArray[np.float16]:
        width, spread = len(self._spread), self._spread.astype(np.float32)
        tracks = PART // (2 * SEGMENT)

        def noise(*shape: int) -> NDArray[np.float32]:
            drawn: NDArray[np.float32] = self._rng.standard_normal((*shape, width), np.float32)
            drawn *= spread
            return drawn

        of_track = 0.9 * self._kinds[self._rng.integers(0, _KINDS, tracks)] + 0.35 * noise(tracks)
        along = np.linspace(-0.25, 0.25, 2 * SEGMENT, dtype=np.float32)[None, :, None]
        rows = of_track[:, None] + along * noise(tracks, 1) + 0.05 * noise(tracks, 2 * SEGMENT)
        states = rows.reshape(-1, width) @ self._turn.T + self._mean
        states *= 12 / np.linalg.norm(states, axis=1, keepdims=True)
        return np.asarray(states, np.float16)

    def words(self, count: int) -> Words:
        """Words that each fit one kind of state, in part: texts have directions of their own."""
        kinds = self._kinds[self._rng.integers(0, _KINDS, count)] @ self._turn.T
        other = self._rng.standard_normal(kinds.shape)
        vectors = sum(
            share * part / np.linalg.norm(part, axis=1, keepdims=True)
            for share, part in ((0.35, kinds), (0.53, other))
        )
        vectors = np.asarray(vectors, np.float32)  # of length 0.63
        sample = np.concatenate([part[::101] for part in self.parts]).astype(np.float32)
        usual = np.quantile(sample @ vectors.T / _SCALE, 1 - _HITS, axis=0)
        return Words(vectors, (-usual).astype(np.float32), np.full(count, 0.5, np.float32))


class _Part:
    """What `Scanner` reads."""

    def __init__(self, rows: NDArray[np.float16]) -> None:
        self._rows = rows

    def states(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        return self._rows[rows].astype(np.float32)


def _head(width: int) -> Head:
    """A head of which the search needs its scale alone."""
    none = np.zeros((width, 1), np.float32)
    return Head(
        none,
        none[:, 0],
        none[:, 0],
        np.zeros((), np.float32),
        np.asarray(_SCALE, np.float32),
        none.T,
    )


def _brute_force(made: MadeUpRows, words: Words, head: Head) -> int:
    """Pairs that reach their threshold, by the exact logits of all rows."""
    return sum(
        int(np.count_nonzero(scores_of(_logits(part, words, head)) >= words.thresholds))
        for part in made.parts
    )


def _logits(part: NDArray[np.float16], words: Words, head: Head) -> NDArray[np.float32]:
    return head.logits(part.astype(np.float32), words.vectors, words.biases)


def _ms(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def index_benchmark(
    *,
    rows: Annotated[
        int, typer.Option(min=1, help="Rows; an hour of 30 frames/s and 50 rows has 5400000.")
    ] = 512_000,
    width: Annotated[int, typer.Option(min=8, help="Numbers of a state.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="Searches of each form.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per form.")] = False,
) -> None:
    """Search made-up rows for 1 and 20 words: time, and its ratio to exact scores of all rows."""
    made, head = MadeUpRows(rows, width), _head(width)
    levels = [build_levels(part.astype(np.float32), made.tracks) for part in made.parts]
    scanner = Scanner([_Part(part) for part in made.parts], levels, head)
    one = 0.0
    for count in (1, 20):
        words = [made.words(count) for _ in range(rounds)]
        found = sum(len(hits.rows) for hits in scanner.search(words[0]))
        every_ms = _ms(partial(_brute_force, made, words[0], head))
        spent = [_ms(partial(scanner.search, some)) for some in words]
        median = float(np.median(spent))
        one = one or median
        line = {
            "words": count,
            "rows": PART * len(made.parts),
            "found": found,
            "median_ms": round(median, 1),
            "p95_ms": round(float(np.quantile(spent, 0.95)), 1),
            "of_one_word": round(median / one, 2),
            "of_brute_force": round(median / every_ms, 4),
        }
        shown = (
            "{words:3} words  {rows} rows  median {median_ms} ms  95 % {p95_ms} ms"
            "  {of_one_word}x one word  {of_brute_force}x brute force  {found} found"
        )
        typer.echo(json.dumps(line) if as_json else shown.format(**line))
