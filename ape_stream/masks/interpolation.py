"""Bilinear interpolation as `upsample` states it: which cells each pixel reads, and their mean."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Axis", "axis", "lerp"]


class Axis(NamedTuple):
    """How the n pixels of one axis of the frame read the map."""

    lower: NDArray[np.intp]
    """(n,) the map cell before."""
    upper: NDArray[np.intp]
    """(n,) the map cell after; the same one at the border."""
    share: NDArray[np.float32]
    """(n,) weight of the cell after."""

    def footprint(self, first: int, last: int) -> tuple[int, int]:
        """The pixels [from, to) that read one of the map cells [first, last)."""
        # lower and upper never decrease, so both ends are found by bisection.
        return int(np.searchsorted(self.upper, first)), int(np.searchsorted(self.lower, last))

    def part(self, first: int, last: int) -> Axis:
        """The pixels [first, last)."""
        return Axis(self.lower[first:last], self.upper[first:last], self.share[first:last])


@lru_cache(maxsize=16)  # a stream keeps its geometry
def axis(pixels: int, filled: float, cells: int) -> Axis:
    """The axis of so many pixels of a frame that fills `filled` of a map's cells."""
    # Pixel i reads the map at (i + 0.5) * filled / n - 0.5: centres of pixels and cells agree. All
    # in float32, as the GPU kernel does it.
    scale, half = np.float32(filled / pixels), np.float32(0.5)
    at = np.maximum((np.arange(pixels, dtype=np.float32) + half) * scale - half, 0)
    lower = np.minimum(at.astype(np.intp), cells - 1)
    return Axis(lower, np.minimum(lower + 1, cells - 1), at - lower.astype(np.float32))


def lerp(
    before: NDArray[np.float32], after: NDArray[np.float32], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Weighted sum of both, each step rounded to float32; overwrites both arrays."""
    before *= 1 - share
    after *= share
    before += after
    return before
