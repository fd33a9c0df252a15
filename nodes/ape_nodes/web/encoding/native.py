"""Label maps in C++: `csrc/labels.cpp`, compiled when the page is opened.

`labels` has the plain form of each in NumPy, whose bytes these have, and which runs where there is
no compiler.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ape_stream.native.arrays import address, numbers
from ape_stream.native.cxx import load_if_possible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_stream.types import Mask

__all__ = ["Labels", "native_labels"]

_SOURCE: Final = Path(__file__).parent / "csrc" / "labels.cpp"
_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int64


class Labels:
    """The functions of a library.

    Args:
        library: Of `csrc/labels.cpp`.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        library.paint.argtypes = (_POINTER, _POINTER, _COUNT, _COUNT, _POINTER, _COUNT)
        library.paint.restype = None
        library.runs.argtypes = (_POINTER, _COUNT, *(_POINTER,) * 3)
        library.runs.restype = _COUNT
        self._library = library

    def paint(self, masks: Sequence[Mask], painted: NDArray[np.uint8], step: int) -> None:
        """Paint masks into a map of zeros; see `labels.paint`.

        Raises:
            ValueError: a mask is not inside the map.
        """
        bitmaps = [numbers(mask.bitmap, np.bool_) for mask in masks]
        extents = np.array([(m.y, m.x, *m.bitmap.shape) for m in masks], np.int64).reshape(-1, 4)
        # Those of the last pixels; memory is at stake.
        if ((extents[:, :2] + extents[:, 2:] - 1) // step >= painted.shape).any():
            raise ValueError("a mask is not inside its frame")
        pointers = (_POINTER * len(masks))(*map(address, bitmaps))
        self._library.paint(
            pointers, address(extents), len(masks), step, address(painted), painted.shape[1]
        )

    def runs(self, labels: NDArray[np.uint8]) -> tuple[bytes, bytes]:
        """Values and lengths of the runs of a map; see `labels.runs`."""
        labels = numbers(labels, np.uint8)
        values, lengths = np.empty(labels.size, np.uint8), np.empty(labels.size, np.uint8)
        size = _COUNT()
        found = self._library.runs(
            address(labels), labels.size, address(values), address(lengths), ctypes.byref(size)
        )
        return values[:found].tobytes(), lengths[: size.value].tobytes()


@cache
def native_labels() -> Labels | None:
    """The functions, compiled if need be; None, and a warning, where there is no compiler."""
    library = load_if_possible(_SOURCE)
    return None if library is None else Labels(library)
