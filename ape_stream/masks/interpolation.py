"""Bilinear interpolation as `upsample` states it: which cells each pixel reads, and their mean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Axis", "Blocks", "axis", "cells_around", "corners_of", "lerp"]


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

    def counted_from(self, cell: int) -> Axis:
        """The same pixels of a map that begins at this cell."""
        return Axis(self.lower - cell, self.upper - cell, self.share)


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


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """The pixels of one axis, grouped by the cell that they read first."""

    starts: NDArray[np.intp]
    """(n,) first pixel of each cell's block."""
    counts: NDArray[np.intp]
    """(n,) pixels of each block; 0 where the frame is smaller than the map."""
    share: NDArray[np.float32]
    """(pixels,) weight of the cell after."""

    @classmethod
    def of(cls, along: Axis) -> Blocks:
        """The blocks of the pixels of an axis."""
        edges = np.searchsorted(along.lower, np.arange(along.lower[-1] + 2))
        return cls(edges[:-1], np.diff(edges), along.share)

    def pixels(self, blocks: NDArray[np.intp]) -> NDArray[np.intp]:
        """(L, N) pixels of N blocks that are not empty; a short one repeats its last pixel."""
        counts = self.counts[blocks]
        within = np.minimum(np.arange(counts.max())[:, None], counts - 1)
        return self.starts[blocks] + within


def corners_of(cells: NDArray[np.float32], rows: int, cols: int) -> list[NDArray[np.float32]]:
    """The four cells, each (..., rows, cols), that the pixels of each block read."""
    padded = np.pad(cells, [(0, 0)] * (cells.ndim - 2) + [(0, 1), (0, 1)], mode="edge")
    return [padded[..., r : r + rows, c : c + cols] for r in (0, 1) for c in (0, 1)]


def cells_around(
    row: NDArray[np.intp], col: NDArray[np.intp], shape: tuple[int, ...]
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Row and column of the four cells around blocks; the last cells have no neighbour."""
    below, right = np.minimum(row + 1, shape[0] - 1), np.minimum(col + 1, shape[1] - 1)
    return [(row, col), (row, right), (below, col), (below, right)]
