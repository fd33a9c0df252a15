"""The best of several low-resolution maps at every pixel of the frame.

The frame reads the maps bilinearly, by the convention of `from_logits`. A bilinear value is a
weighted mean of the four cells around the pixel, and rounding keeps the order of two means. So
where one map is the largest at all four cells, it is the largest at every pixel between them: such
blocks of pixels are filled. In the others only the maps are compared that can win: one whose
largest of four cells is below the least of another cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ape_stream.masks.interpolation import axis, lerp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ape_stream.masks.interpolation import Axis

__all__ = ["argmax_upsampled", "upsampled"]

_AT_ONCE = 2**16
"""Pixels compared at a time: few enough that they stay in a core's cache."""


def upsampled(
    maps: NDArray[np.float32], size: tuple[int, int], filled: tuple[float, float]
) -> NDArray[np.float32]:
    """(K, h, w) maps at every pixel of a frame, (K, H, W) float32, as `from_logits` reads them.

    Args:
        maps: finite.
        size: height and width of the frame, pixels.
        filled: rows and columns of the maps that the frame fills.
    """
    rows, cols = axis(size[0], filled[0], maps.shape[1]), axis(size[1], filled[1], maps.shape[2])
    wide = lerp(maps.take(cols.lower, 2), maps.take(cols.upper, 2), cols.share)  # (K, h, W)
    return lerp(wide.take(rows.lower, 1), wide.take(rows.upper, 1), rows.share[:, None])


def argmax_upsampled(
    values: NDArray[np.float32],
    gates: NDArray[np.float32],
    size: tuple[int, int],
    filled: tuple[float, float],
) -> NDArray[np.uint16]:
    """Which of the upsampled maps is the largest at each pixel, if its gate is open there.

    The same as the argmax of `upsampled` of all maps, the first of equal ones (two that differ by
    less than the rounding of their means may be taken for either).

    Args:
        values: (K, h, w) float32, finite, at most 65,535 maps.
        gates: (K, h, w) or, one for all, (1, h, w): open where the upsampled gate is at least 1.
        size: height and width of the frame, pixels.
        filled: rows and columns of the maps that the frame fills.

    Returns:
        (H, W) uint16: 0 where the gate of the largest is closed, else its position + 1.
    """
    if not len(values):
        return np.zeros(size, np.uint16)
    rows, cols = (
        axis(size[0], filled[0], values.shape[1]),
        axis(size[1], filled[1], values.shape[2]),
    )
    grid = _Blocks.of(rows), _Blocks.of(cols)
    winner, decided = _decided(values, gates, len(grid[0].starts), len(grid[1].starts))
    out = np.repeat(np.repeat(winner, grid[1].counts, 1), grid[0].counts, 0)  # (H, W)
    occupied = (grid[0].counts > 0)[:, None] & (grid[1].counts > 0)
    for part in _open_blocks(values, occupied & ~decided):
        _compare(out, part, gates, *grid)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """The pixels of one axis, grouped by the cell that they read first."""

    starts: NDArray[np.intp]
    """(n,) first pixel of each cell's block."""
    counts: NDArray[np.intp]
    """(n,) pixels of each block; 0 where the frame is smaller than the map."""
    share: NDArray[np.float32]
    """(pixels,) weight of the cell after."""

    @classmethod
    def of(cls, along: Axis) -> _Blocks:
        edges = np.searchsorted(along.lower, np.arange(along.lower[-1] + 2))
        return cls(edges[:-1], np.diff(edges), along.share)

    def pixels(self, blocks: NDArray[np.intp]) -> NDArray[np.intp]:
        """(L, N) pixels of N blocks that are not empty; a short one repeats its last pixel."""
        counts = self.counts[blocks]
        within = np.minimum(np.arange(counts.max())[:, None], counts - 1)
        return self.starts[blocks] + within


def _corners(cells: NDArray[np.float32], rows: int, cols: int) -> list[NDArray[np.float32]]:
    """The four cells, each (..., rows, cols), that the pixels of each block read."""
    padded = np.pad(cells, [(0, 0)] * (cells.ndim - 2) + [(0, 1), (0, 1)], mode="edge")
    return [padded[..., r : r + rows, c : c + cols] for r in (0, 1) for c in (0, 1)]


def _decided(
    values: NDArray[np.float32], gates: NDArray[np.float32], rows: int, cols: int
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """What fills each block, (rows, cols) uint16, and where that is certain."""
    best = values.argmax(0)  # (h, w)
    gate = gates[0] if len(gates) == 1 else np.take_along_axis(gates, best[None], 0)[0]
    winners = _corners(best, rows, cols)
    alike = np.logical_and.reduce([other == winners[0] for other in winners[1:]])
    certain = alike & (np.minimum.reduce(_corners(gate, rows, cols)) >= 1)
    # No gate of any map is open around the block: it is empty, whichever is the largest.
    empty = np.maximum.reduce(_corners(gates.max(0), rows, cols)) < 1
    filled = np.where(certain, winners[0] + 1, 0).astype(np.uint16)
    return filled, certain | empty


@dataclass(frozen=True, slots=True, eq=False)
class _OpenBlocks:
    """N blocks in each of which C maps can win."""

    row: NDArray[np.intp]
    """(N,)."""
    col: NDArray[np.intp]
    """(N,)."""
    classes: NDArray[np.intp]
    """(N, C) positions of the maps, rising; a block with fewer repeats its last."""
    corners: NDArray[np.float32]
    """(4, N, C) their values at the cells around."""


def _open_blocks(
    values: NDArray[np.float32], undecided: NDArray[np.bool_]
) -> Iterator[_OpenBlocks]:
    """The undecided blocks with the maps that can win there, by their number."""
    row, col = np.nonzero(undecided)
    around = np.stack([values[:, r, c] for r, c in _cells(row, col, values.shape[1:])])  # (4, K, N)
    # A mean lies between the least and the largest: below another's least one cannot win.
    can_win = around.max(0) >= around.min(0).max(0)  # (K, N)
    block, classes = np.nonzero(can_win.T)
    counts = can_win.sum(0)  # (N,)
    first = np.searchsorted(block, np.arange(len(counts)))
    # Blocks of up to 2, 4, 8, ... maps together: few groups, so few calls.
    groups = np.ceil(np.log2(np.maximum(counts, 2))).astype(np.intp)
    for group in np.unique(groups):
        chosen = np.flatnonzero(groups == group)
        # Where there are fewer, the last comes again: it is not larger than itself.
        place = np.minimum(np.arange(counts[chosen].max()), counts[chosen][:, None] - 1)
        own = classes[first[chosen][:, None] + place]  # (n, C)
        corners = around[:, own.T, chosen].swapaxes(1, 2)  # (4, n, C)
        yield _OpenBlocks(row[chosen], col[chosen], own, corners)


def _cells(
    row: NDArray[np.intp], col: NDArray[np.intp], shape: tuple[int, ...]
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Row and column of the four cells around blocks; the last cells have no neighbour."""
    below, right = np.minimum(row + 1, shape[0] - 1), np.minimum(col + 1, shape[1] - 1)
    return [(row, col), (row, right), (below, col), (below, right)]


def _compare(
    out: NDArray[np.uint16],
    blocks: _OpenBlocks,
    gates: NDArray[np.float32],
    rows: _Blocks,
    cols: _Blocks,
) -> None:
    """Fill undecided blocks of the frame pixel by pixel; blocks are the last axis of all arrays."""
    pixels = max(1, int(rows.counts.max()) * int(cols.counts.max()))
    step = max(1, _AT_ONCE // pixels)
    flat = out.reshape(-1)
    for start in range(0, len(blocks.row), step):
        part = slice(start, start + step)
        row, col, classes = blocks.row[part], blocks.col[part], blocks.classes[part].T  # (C, n)
        y, x = rows.pixels(row), cols.pixels(col)  # (R, n), (S, n)
        shares = rows.share[y], cols.share[x]
        around = _cells(row, col, gates.shape[1:])
        winner = np.broadcast_to((classes[0] + 1).astype(np.uint16), (len(y), *x.shape))
        best = _between(blocks.corners[:, part, 0], *shares)  # (R, S, n)
        own = classes if len(gates) > 1 else np.zeros_like(classes)
        gate = _gate(gates, own[0], around, shares)
        for k in range(1, len(classes)):
            value = _between(blocks.corners[:, part, k], *shares)
            better = value > best
            winner = np.where(better, (classes[k] + 1).astype(np.uint16), winner)
            np.maximum(best, value, out=best)
            if len(gates) > 1:
                gate = np.where(better, _gate(gates, own[k], around, shares), gate)
        # One index is faster than two.
        flat[(y * out.shape[1])[:, None] + x] = np.where(gate < 1, 0, winner)


def _gate(
    gates: NDArray[np.float32],
    classes: NDArray[np.intp],
    around: list[tuple[NDArray[np.intp], NDArray[np.intp]]],
    shares: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """The gate of a map of each of n blocks, at the blocks' pixels (R, S, n)."""
    corners = np.stack([gates[classes, r, c] for r, c in around])  # (4, n)
    if corners.min() >= 1:  # open at every pixel
        return np.ones((1, 1, len(classes)), np.float32)
    return _between(corners, *shares)


def _between(
    corners: NDArray[np.float32], down: NDArray[np.float32], right: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(4, n) cells at the pixels of n blocks, (R, S, n): columns first, then rows, as `lerp`."""
    left = 1 - right
    top: NDArray[np.float32] = corners[0] * left + corners[1] * right  # (S, n)
    low = corners[2] * left + corners[3] * right
    between: NDArray[np.float32] = top * (1 - down)[:, None]  # (R, S, n)
    between += low * down[:, None]
    return between
