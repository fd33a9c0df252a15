"""Arrays inside frozen values: read-only, and of the shape and dtype that their field says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["checked", "read_only"]


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view of an array that cannot be written through; no copy."""
    view = array.view()
    view.flags.writeable = False
    return view


def checked(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """A read-only view of an array that must have this shape and dtype.

    Raises:
        ValueError: it has another one; the message names the array and both.
    """
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {shape} {np.dtype(dtype)}, got {array.shape} {array.dtype}"
        )
    return read_only(array)
