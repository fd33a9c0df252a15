"""The inner loops of a search in C++: `csrc/search.cpp`, compiled at first use.

What they compute is what `Levels.candidates` and `Scanner` compute in NumPy, which runs where there
is no compiler, for a fifth of the time of a pair.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.native.arrays import address, numbers
from ape_stream.native.cxx import load_if_possible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_stream.index.alignment import Codes

__all__ = ["HALVES", "Kernels", "kernels"]

HALVES: Final = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""What 16 bits are as a float16."""
_SOURCE: Final = Path(__file__).parent / "csrc" / "search.cpp"
_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int64
_LEVELS: Final = ("first", "middle", "middle_step", "spread", "longest_rest", "codes", "rest",
                  "order", "halves")  # fmt: skip
_TEXTS: Final = ("vectors", "lengths", "along", "outside", "needed")


class _Levels(ctypes.Structure):
    """`struct Levels` of search.cpp, where each field is explained."""

    _fields_ = (
        *((name, _POINTER) for name in _LEVELS),
        ("width", _COUNT),
        ("directions", _COUNT),
    )


class _Texts(ctypes.Structure):
    """`struct Texts` of search.cpp."""

    _fields_ = (*((name, _POINTER) for name in _TEXTS), ("count", _COUNT))


class Kernels:
    """The loops of a library.

    Args:
        library: Of `csrc/search.cpp`.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.candidates.argtypes = (_POINTER,) * 5 + (_COUNT, _POINTER)
        library.products.argtypes = (*(_POINTER,) * 4, _COUNT, _POINTER, _COUNT, *(_POINTER,) * 3)
        library.candidates.restype = library.products.restype = _COUNT

    def candidates(
        self,
        levels: Sequence[NDArray[Any]],
        texts: Sequence[NDArray[np.float32]],
        opened: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]],
        keys: NDArray[np.int64],
    ) -> int:
        """Rows of open segments that may reach a floor; see `Levels.candidates`.

        Args:
            levels: The fields first, middle, middle_step, spread, longest_rest, codes, rest and
                order.
            texts: (P, C) vectors, (P,) lengths, (P, k) of codes, (P,) of rests, (P,) what each
                needs.
            opened: (O,) segments, (O,) words, (O,) bounds without middles.
            keys: (n O,) for segments of n rows, gets row * P + word of each.

        Returns:
            How many.
        """
        # Named, so that what is copied lives until the call returns.
        stored = [numbers(one, one.dtype) for one in (*levels, HALVES)]
        asked = [numbers(one, np.float32) for one in texts]
        segments, words = (numbers(one, np.int64) for one in opened[:2])
        highest = numbers(opened[2], np.float32)
        width, directions = stored[1].shape[1], stored[5].shape[1]
        every = _Levels(*map(address, stored), width, directions)
        given = _Texts(*map(address, asked), len(asked[0]))
        found: int = self._library.candidates(
            ctypes.addressof(every), ctypes.addressof(given), address(segments), address(words),
            address(highest), len(segments), address(keys),
        )  # fmt: skip
        return found

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
            rows: (H,) of the states.
            texts: (P, C) made by `fixed_point`.
            columns: (H,) of the texts.
            least: (P,) smallest product that is wanted.

        Returns:
            (n,) products, and their (n,) positions in `rows`.
        """
        stored = numbers(states.code, np.int16), numbers(states.exponent, np.int16)
        pairs = numbers(rows, np.int64), numbers(columns, np.int64)
        exact, limits = numbers(texts, np.float64), numbers(least, np.float64)
        products, kept = np.empty(len(rows)), np.empty(len(rows), np.int64)
        count = self._library.products(
            *map(address, (*stored, *pairs)), len(rows), address(exact), exact.shape[1],
            *map(address, (limits, products, kept)),
        )  # fmt: skip
        return products[:count], kept[:count]


@cache
def kernels() -> Kernels | None:
    """The loops; None, and a warning, where they cannot be compiled."""
    library = load_if_possible(_SOURCE)
    return None if library is None else Kernels(library)
