"""Arrays as arguments of C functions."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["address", "numbers"]


def numbers(array: NDArray[Any], kind: Any) -> NDArray[Any]:
    """The array in one piece of memory and of this dtype, copied where it is not."""
    return np.ascontiguousarray(array, kind)


def address(array: NDArray[Any]) -> int:
    """Where the numbers of an array begin, which must outlive the call and lie in one piece."""
    assert array.flags.c_contiguous  # noqa: S101 (a mistake of ours, and memory is at stake)
    if array.size and array.flags.writeable:  # a third of the time of what follows
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
    return int(array.ctypes.data)
