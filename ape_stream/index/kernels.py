"""The inner loops of a search, compiled by numba where it is installed (extra `numba`).

What they compute is what `Levels.candidates` and `Scanner` compute in NumPy, for a fifth of the
time of a pair. To load numba takes as long as NumPy takes for thousands of pairs: so they are
loaded once a process has searched as many.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ape_stream.index.alignment import Codes

__all__ = ["HALVES", "Kernels", "fixed", "kernels", "worthwhile"]

HALVES: Final = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""What 16 bits are as a float16: numba knows no float16."""
_PAYS: Final = 50_000
"""Pairs after which a process loads the kernels: NumPy takes half a second for these."""


def _candidates(pairs: Any, levels: Any, slopes: Any, keys: Any) -> int:
    """Rows of open segments that may reach a floor; see `Levels.candidates`.

    Args:
        pairs: (O,) segments, (O,) words, (O,) bounds without middles, and (P,) what each needs.
        levels: The fields first, middle, middle_step, spread, longest_rest, codes, rest and order,
            where those of float16 are uint16; and what each of these is, (65536,) float32.
        slopes: (P, C) texts, (P,) lengths, (P, k) of codes and (P,) of rests.
        keys: (32 O,) int64, gets row * P + word of each.

    Returns:
        How many.
    """
    segments, words, highest, needed = pairs
    first, middle, middle_step, spread, longest, codes, rest, order, halves = levels
    texts, lengths, along, outside = slopes
    count = 0
    for pair in range(len(segments)):
        s, w = segments[pair], words[pair]
        text, steps = texts[w], along[w]
        product = np.float32(0)
        for c in range(text.shape[0]):
            product += middle[s, c] * text[c]
        left = needed[w] - product * middle_step[s]
        # What is no number is looked at, too.
        reach = halves[spread[s]] * lengths[w] - halves[longest[s]] * outside[w]
        if highest[pair] + reach < left:
            continue
        for row in range(first[s], first[s + 1]):
            bound = halves[rest[row]] * lengths[w]
            for j in range(steps.shape[0]):
                bound += codes[row, j] * steps[j]
            if not bound < left:
                keys[count] = order[row] * len(needed) + w
                count += 1
    return count


def _products(code: Any, exponent: Any, pairs: Any, texts: Any, least: Any, kept: Any) -> Any:
    """Exact products of states and texts that are large enough; see `Codes` and `fixed_point`.

    Args:
        code: (N, C) int16.
        exponent: (N,) int16.
        pairs: (H,) rows of the states and (H,) columns of the texts.
        texts: (P, C) float64, in fixed point.
        least: (P,) smallest product that is kept.
        kept: (H,) int64, gets the positions of those that are.
    """
    rows, columns = pairs
    width = texts.shape[1]
    wide = np.empty(width, np.float64)
    products = np.empty(len(rows), np.float64)
    last, unit, count = -1, 1.0, 0
    for pair in range(len(rows)):
        if rows[pair] != last:  # all words of a row follow one another
            last = rows[pair]
            unit = math.ldexp(1.0, exponent[last])
            for c in range(width):
                wide[c] = code[last, c]
        text = texts[columns[pair]]
        total = 0.0
        for c in range(width):
            total += wide[c] * text[c]
        total *= unit  # a power of two
        if not total < least[columns[pair]]:
            products[count], kept[count] = total, pair
            count += 1
    return products[:count]


@dataclass(frozen=True, slots=True)
class Kernels:
    """The compiled loops."""

    candidates: Callable[[Any, Any, Any, Any], int]
    """See `_candidates`."""
    loop: Callable[..., NDArray[np.float64]]
    """See `_products`."""

    def products(
        self,
        states: Codes,
        rows: NDArray[np.intp],
        texts: NDArray[np.float64],
        columns: NDArray[np.intp],
        least: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Exact products of states as stored and texts in fixed point, where they are large enough.

        Args:
            states: N of them.
            rows: (H,) of the states; equal ones follow one another.
            texts: (P, C) made by `fixed_point`.
            columns: (H,) of the texts.
            least: (P,) smallest product that is wanted.

        Returns:
            (n,) products, and their (n,) positions in `rows`.
        """
        kept = np.empty(len(rows), np.intp)
        stored = fixed(states.code), fixed(states.exponent)
        products = self.loop(*stored, (rows, columns), texts, least, kept)
        return products, kept[: len(products)]


def fixed(array: NDArray[Any]) -> NDArray[Any]:
    """A view that cannot be written to: numba compiles once more for arrays that can."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


@cache
def kernels() -> Kernels | None:
    """The loops, compiled at their first call or read from numba's cache; None without numba."""
    try:
        numba: Any = importlib.import_module("numba")
    except ImportError:
        return None
    # Sums of fixed point are exact in any order (decisions/0009), and bounds have a slack for it.
    compiled = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
    return Kernels(compiled(_candidates), compiled(_products))


_searched = 0


def worthwhile(pairs: int) -> Kernels | None:
    """The kernels once this process has searched enough pairs that they pay.

    Args:
        pairs: Of the search that begins.
    """
    global _searched  # noqa: PLW0603 (a count of this process)
    _searched += pairs
    return kernels() if _searched > _PAYS else None
