"""`ape-stream bench index`: how long a search of many rows takes, against reading all of them.

The states are made up, with the statistics of those that nano has of drawn videos: one length (12),
a mean of length 5.6, a spectrum that leaves 1.4 % of the variance outside of 32 directions, and a
change of 6 % from frame to frame. Two things differ. Outside of the 32 directions, rows of one
segment are 0.1 apart from their middle; nano's are 0.5. And one row in 3,000 reaches the threshold
of a word, with as many more close below it; of nano's own states nine words in ten find none, and
the others have next to none close below. The last two lines are for words that find nothing.
"""

from __future__ import annotations

import copy
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import typer
from numpy.lib.format import open_memmap

from ape_stream.index.alignment import Codes, Head, scores_of, state_codes
from ape_stream.index.levels import SEGMENT, build_levels
from ape_stream.index.scan import Scanner, Words

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ape_stream.index.levels import Levels

__all__ = ["MadeUpRows", "index_benchmark"]

PART: Final = 51_200
"""Rows of a part: 1,024 frames of 50."""
_SCALE: Final = 0.56
_KINDS: Final = 170
_HITS: Final = 1 / 3000
_DISTINCT: Final = 10
"""Parts that are drawn; more are copies: only the memory that is read must be of full size."""


class MadeUpRows:
    """Parts of made-up states, in a file that is mapped into memory.

    Args:
        rows: How many, rounded up to whole parts.
        width: C.
        folder: Where the file is made; None keeps them in memory.
    """

    def __init__(self, rows: int, width: int, folder: Path | None = None) -> None:
        self._rng = np.random.default_rng(0)
        decay = np.exp(-np.arange(width) / 5.2) + 2e-4
        self._spread = 10.4 * np.sqrt(decay / decay.sum())  # (C,)
        self._turn = np.linalg.qr(self._rng.standard_normal((width, width)))[0]
        self._mean = self._rng.standard_normal(width)
        self._mean *= 5.6 / np.linalg.norm(self._mean)
        self._kinds = self._rng.standard_normal((_KINDS, width)) * self._spread
        self.tracks = 1 + np.arange(PART, dtype=np.int64) // (2 * SEGMENT)
        self.parts = self._made(-(-rows // PART), folder)
        self.levels = self._levels()

    def _made(self, count: int, folder: Path | None) -> list[Codes]:
        """The parts; those after the first few are copies of these, in memory of their own."""
        shape = (count, PART, len(self._spread))
        every = (
            np.empty(shape, np.int16)
            if folder is None
            else open_memmap(folder / "rows.npy", "w+", np.int16, shape)
        )
        exponents = np.empty(shape[:2], np.int16)
        for number in range(count):
            own = Codes(every[number], exponents[number])
            made = self._part() if number < _DISTINCT else self._codes(every, exponents, number)
            own.code[...], own.exponent[...] = made
        return [Codes(*pair) for pair in zip(every, exponents, strict=True)]

    @staticmethod
    def _codes(every: NDArray[np.int16], exponents: NDArray[np.int16], number: int) -> Codes:
        """The part that another one is a copy of."""
        return Codes(every[number % _DISTINCT], exponents[number % _DISTINCT])

    def _levels(self) -> list[Levels]:
        own = [build_levels(part.states(), self.tracks) for part in self.parts[:_DISTINCT]]
        copies = range(_DISTINCT, len(self.parts))
        return own + [copy.deepcopy(own[number % _DISTINCT]) for number in copies]

    def _part(self) -> Codes:
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
        return state_codes(states.astype(np.float32))

    def words(self, count: int, hits: float = _HITS) -> Words:
        """Words that each fit one kind of state, in part: texts have directions of their own.

        Args:
            count: P.
            hits: The share of rows that reach the threshold; 0 is a distance of 2 from all rows.
        """
        kinds = self._kinds[self._rng.integers(0, _KINDS, count)] @ self._turn.T
        other = self._rng.standard_normal(kinds.shape)
        vectors = sum(
            share * part / np.linalg.norm(part, axis=1, keepdims=True)
            for share, part in ((0.35, kinds), (0.53, other))
        )
        vectors = np.asarray(vectors, np.float32)  # of length 0.63
        own = self.parts[:_DISTINCT]
        sample = np.concatenate([part.take(slice(None, None, 101)).states() for part in own])
        usual = np.quantile(sample @ vectors.T / _SCALE, 1 - hits, axis=0) + (0 if hits else 2)
        return Words(vectors, (-usual).astype(np.float32), np.full(count, 0.5, np.float32))


class _Part:
    """What `Scanner` reads."""

    def __init__(self, rows: Codes) -> None:
        self._rows = rows

    def states(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        return self._rows.take(rows).states()

    def stored(self, rows: NDArray[np.intp]) -> Codes:
        del rows
        return self._rows


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


def _brute_force(parts: list[Codes], words: Words, head: Head) -> int:
    """Pairs that reach their threshold, by the exact logits of all rows."""
    return sum(
        int(np.count_nonzero(scores_of(_logits(part, words, head)) >= words.thresholds))
        for part in parts
    )


def _logits(part: Codes, words: Words, head: Head) -> NDArray[np.float32]:
    return head.logits(part.states(), words.vectors, words.biases)


def _ms(work: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds of the clock, and of processors."""
    start, own = time.perf_counter(), time.process_time()
    work()
    return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - own)


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
    with tempfile.TemporaryDirectory() as folder:
        made, head = MadeUpRows(rows, width, Path(folder)), _head(width)
        scanner = Scanner([_Part(part) for part in made.parts], made.levels, head)
        scanner.search(made.words(1))  # this compiles the loops
        one = 0.0
        for count, hits in ((1, _HITS), (20, _HITS), (1, 0.0), (20, 0.0)):
            words = [made.words(count, hits) for _ in range(rounds)]
            line = _measured(made, scanner, words, head)
            one = line["median_ms"] if count == 1 else one
            line["of_one_word"] = round(line["median_ms"] / one, 2)
            typer.echo(json.dumps(line) if as_json else _SHOWN.format(**line))


_SHOWN: Final = (
    "{words:3} words  {rows} rows  {found:6} found  median {median_ms} ms  95 % {p95_ms} ms"
    "  CPU {cpu_ms} ms, best {best_cpu_ms} ms  {of_one_word}x one word"
    "  {of_brute_force}x brute force"
)


def _measured(made: MadeUpRows, scanner: Scanner, words: list[Words], head: Head) -> dict[str, Any]:
    """Times of searches, each for other words."""
    found = sum(len(hits.rows) for hits in scanner.search(words[0]))
    every_ms, _ = _ms(partial(_brute_force, made.parts[:_DISTINCT], words[0], head))
    every_ms *= len(made.parts) / len(made.parts[:_DISTINCT])
    spent = np.array([_ms(partial(scanner.search, some)) for some in words])  # (rounds, 2)
    median, cpu = np.median(spent, axis=0).tolist()
    return {
        "words": len(words[0].vectors),
        "rows": PART * len(made.parts),
        "found": found,
        "median_ms": round(median, 1),
        "p95_ms": round(float(np.quantile(spent[:, 0], 0.95)), 1),
        "cpu_ms": round(cpu, 1),
        "best_cpu_ms": round(float(spent[:, 1].min()), 1),
        "of_brute_force": round(median / every_ms, 4),
    }
