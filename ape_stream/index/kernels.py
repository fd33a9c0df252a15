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

from ape_stream.index.alignment import fixed_point_bits

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["HALVES", "Kernels", "fixed", "kernels", "worthwhile"]

HALVES: Final = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""What 16 bits are as a float16: numba knows no float16."""
_PAYS: Final = 50_000
"""Pairs after which a process loads the kernels: NumPy takes half a second for these."""
_FLOAT32, _FLOAT16, _BFLOAT16 = range(3)
_KINDS: Final = {
    "<f4": (_FLOAT32, np.uint32),
    "<f2": (_FLOAT16, np.uint16),
    "<u2": (_BFLOAT16, np.uint16),
}
"""Of `RowTable.state`."""


def _candidates(pairs: Any, levels: Any, slopes: Any, keys: Any) -> int:
    """Rows of open segments that may reach a floor; see `Levels.candidates`.

    Args:
        pairs: (O,) segments, (O,) words, (O,) bounds without middles, and (P,) what each needs.
        levels: first, middle, middle_step, spread, longest_rest, codes, rest and order, where those
            of float16 are uint16; and what each of these is, (65536,) float32.
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


def _products(states: Any, kind: int, rows: Any, texts: Any, columns: Any, bits: int) -> Any:
    """Exact products of states and texts; see `fixed_point`.

    Args:
        states: (N, C) bits: of float32 as uint32, others as uint16.
        kind: of these.
        rows: (H,) of the states.
        texts: (P, C) float64, in fixed point.
        columns: (H,) of the texts.
        bits: of fixed point.
    """
    width = texts.shape[1]
    raw, top = np.empty(width, np.uint32), np.empty(1, np.uint32)  # bits of float32
    values, largest = raw.view(np.float32), top.view(np.float32)
    scale = 2.0**112 if kind == _FLOAT16 else 1.0  # exponents count from -15, not from -127
    wide = np.empty(width, np.float64)
    products = np.empty(len(rows), np.float64)
    last, unit = -1, 1.0
    for pair in range(len(rows)):
        if rows[pair] != last:  # all words of a row follow one another
            last = rows[pair]
            most = np.uint32(0)
            for c in range(width):
                stored = np.uint32(states[last, c])
                if kind == _FLOAT16:
                    sign = (stored & np.uint32(0x8000)) << np.uint32(16)
                    raw[c] = ((stored & np.uint32(0x7FFF)) << np.uint32(13)) | sign
                elif kind == _BFLOAT16:
                    raw[c] = stored << np.uint32(16)
                else:
                    raw[c] = stored
                # As whole numbers, magnitudes have the same order.
                most = max(most, raw[c] & np.uint32(0x7FFFFFFF))
            top[0] = most
            _, exponent = math.frexp(np.float64(largest[0]) * scale)
            more, unit = math.ldexp(scale, bits - exponent), math.ldexp(1.0, exponent - bits)
            for c in range(width):
                wide[c] = np.rint(np.float64(values[c]) * more)
        text = texts[columns[pair]]
        total = 0.0
        for c in range(width):
            total += wide[c] * text[c]
        products[pair] = total * unit  # a power of two
    return products


@dataclass(frozen=True, slots=True)
class Kernels:
    """The compiled loops."""

    candidates: Callable[[Any, Any, Any, Any], int]
    """See `_candidates`."""
    loop: Callable[..., NDArray[np.float64]]
    """See `_products`."""

    def products(
        self,
        states: NDArray[Any],
        rows: NDArray[np.intp],
        texts: NDArray[np.float64],
        columns: NDArray[np.intp],
    ) -> NDArray[np.float64]:
        """(H,) exact products of states as stored and texts in fixed point.

        Args:
            states: (N, C); see `RowTable.state`.
            rows: (H,) of the states; equal ones follow one another.
            texts: (P, C) made by `fixed_point`.
            columns: (H,) of the texts.
        """
        kind, bits = _KINDS[states.dtype.str]
        raw = fixed(states).view(bits)
        return self.loop(raw, kind, rows, texts, columns, fixed_point_bits(texts.shape[1]))


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
