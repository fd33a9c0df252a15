"""The inner loops of indexing in C++: `csrc/keep.cpp`, compiled at first use.

Each has a plain form in NumPy, whose results it has bit for bit, and which runs where there is no
compiler.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.index.alignment import LEAST_EXPONENT, STATE_BITS, Codes
from ape_stream.native.arrays import address, numbers
from ape_stream.native.cxx import load_if_possible

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.index.cells import Edges

__all__ = ["Loops", "loops"]

_SOURCE: Final = Path(__file__).parent / "csrc" / "keep.cpp"
_POINTER, _COUNT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_ARGUMENTS: Final[dict[str, tuple[Any, ...]]] = {
    "survivors": (_POINTER, _POINTER, _COUNT, _COUNT, _FLOAT, _FLOAT, _POINTER, _POINTER),
    "groups": (_POINTER, _POINTER, _COUNT, _FLOAT, _POINTER, _POINTER),
    "deciding": (*(_POINTER,) * 4, _COUNT, *(_POINTER,) * 5),
    "differences": (*(_POINTER,) * 3, _COUNT, _COUNT, *(_POINTER,) * 3),
    "nearest_of_far": (_POINTER, _COUNT, _COUNT, _POINTER),
    "codes": (_POINTER, *(_COUNT,) * 4, *(_POINTER,) * 3),
}
_COUNTED: Final = frozenset({"groups", "deciding"})
"""Those that return how many of what they made are used."""


class Loops:
    """The loops of a library.

    Args:
        library: Of `csrc/keep.cpp`.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        for name, arguments in _ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = _COUNT if name in _COUNTED else None

    def survivors(
        self, logits: NDArray[np.float32], boxes: NDArray[np.float32], floor: float, iou: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `survivors`; `iou` is `NMS_IOU`."""
        logits, boxes = numbers(logits, np.float32), numbers(boxes, np.float32)
        words, queries = logits.shape
        best, lead = np.empty(queries, np.float32), np.empty(queries, np.float32)
        self._library.survivors(
            address(logits),
            address(boxes),
            words,
            queries,
            floor,
            iou,
            address(best),
            address(lead),
        )
        return best, lead

    def groups(
        self, boxes: NDArray[np.float32], order: NDArray[np.intp], iou: float
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """See `grouped`; `order` is (K,) rows, the strongest first, and `iou` `SAME_IOU`."""
        boxes, order = numbers(boxes, np.float32), numbers(order, np.int64)
        leaders, owner = np.empty(len(boxes), np.int64), np.empty(len(boxes), np.int64)
        count = self._library.groups(
            address(boxes), address(order), len(boxes), iou, address(leaders), address(owner)
        )
        return leaders[:count], owner

    def deciding(
        self,
        logits: NDArray[np.int8],
        positive: NDArray[np.bool_],
        edges: Edges | None,
        filled: tuple[float, float],
    ) -> tuple[NDArray[np.uint32], NDArray[np.int8], NDArray[np.uint8]]:
        """See `pack_maps` and `surely_drawn`.

        Args:
            logits: (K, h, w).
            positive: (K, h, w) which are above 0.
            edges: Of `inside_boxes`, for all of them.
            filled: Rows and columns of the maps that the image fills.

        Returns:
            (K,) counts, (n,) numbers, and (K,) which are drawn for sure.
        """
        logits, positive = numbers(logits, np.int8), numbers(positive, np.bool_)
        down, across = (numbers(side, np.bool_) for side in edges or (_NO_EDGE, _NO_EDGE))
        cut = (None, None) if edges is None else (address(down), address(across))
        sides = np.array(logits.shape[1:], np.int64), np.array(filled, np.int64)
        counts, drawn = np.empty(len(logits), np.uint32), np.empty(len(logits), np.uint8)
        kept = np.empty(logits.size, np.int8)
        count = self._library.deciding(
            address(logits), address(positive), *cut, len(logits), *map(address, sides),
            address(counts), address(kept), address(drawn),
        )  # fmt: skip
        return counts, kept[:count].copy(), drawn

    def differences(
        self, states: NDArray[np.float32], kept: NDArray[np.float32], base: NDArray[np.intp]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float64]]:
        """See `differences`."""
        states, kept = numbers(states, np.float32), numbers(kept, np.float32)
        base = numbers(base, np.int64)
        count, width = states.shape
        code, step = np.empty((count, width), np.int8), np.empty(count, np.float32)
        lost = np.empty(count, np.float64)
        self._library.differences(
            address(states), address(kept), address(base), count, width,
            address(code), address(step), address(lost),
        )  # fmt: skip
        return code, step, lost

    def nearest_of_far(self, distances: NDArray[np.float32], count: int) -> NDArray[np.intp]:
        """See `nearest_of_far`."""
        distances = numbers(distances, np.float32)
        owner = np.empty(len(distances), np.int64)
        self._library.nearest_of_far(address(distances), len(distances), count, address(owner))
        return owner

    def codes(self, states: NDArray[np.float32]) -> tuple[Codes, NDArray[np.float32]]:
        """See `rounded_states`."""
        states = numbers(states, np.float32)
        count, width = states.shape
        code, exponent = np.empty((count, width), np.int16), np.empty(count, np.int16)
        rounded = np.empty((count, width), np.float32)
        self._library.codes(
            address(states), count, width, STATE_BITS, LEAST_EXPONENT,
            address(code), address(exponent), address(rounded),
        )  # fmt: skip
        return Codes(code, exponent), rounded


_NO_EDGE: Final = np.zeros((0, 0), np.bool_)


@cache
def loops() -> Loops | None:
    """The loops; None, and a warning, where they cannot be compiled."""
    # An overlap exactly at the limit is decided as in NumPy: every product is rounded by itself.
    library = load_if_possible(_SOURCE, "-ffp-contract=off")
    return None if library is None else Loops(library)
