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

from ape_stream.masks.interpolation import Blocks, axis, cells_around, corners_of, lerp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["argmax_upsampled", "upsampled"]

_AT_ONCE = 2**16
"""Pixels compared at a time: few enough that they stay in a core's cache."""


def upsampled(
    maps: NDArray[np.float32], size: tuple[int, int], filled: tuple[float, float]
) -> NDArray[np.float32]:
    """(K, h, w) maps at every pixel of a frame, (K, H, W) float32, as `from_logits` reads them.

    Args:
        maps: Finite.
        size: Height and width of the frame, pixels.
        filled: Rows and columns of the maps that the frame fills.
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
        size: Height and width of the frame, pixels.
        filled: Rows and columns of the maps that the frame fills.

    Returns:
        (H, W) uint16: 0 where the gate of the largest is closed, else its position + 1.
    """
    if not len(values):
        return np.zeros(size, np.uint16)
    rows, cols = (
        axis(size[0], filled[0], values.shape[1]),
        axis(size[1], filled[1], values.shape[2]),
    )
    grid = Blocks.of(rows), Blocks.of(cols)
    winner, decided = _decided(values, gates, len(grid[0].starts), len(grid[1].starts))
    out = np.repeat(np.repeat(winner, grid[1].counts, 1), grid[0].counts, 0)  # (H, W)
    occupied = (grid[0].counts > 0)[:, None] & (grid[1].counts > 0)
    for part in _open_blocks(values, gates, occupied & ~decided):
        _compare(out, part, gates, *grid)
    return out


def _decided(
    values: NDArray[np.float32], gates: NDArray[np.float32], rows: int, cols: int
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """What fills each block, (rows, cols) uint16, and where that is certain."""
    best = values.argmax(0)  # (h, w)
    gate = gates[0] if len(gates) == 1 else np.take_along_axis(gates, best[None], 0)[0]
    winners = corners_of(best, rows, cols)
    alike = np.logical_and.reduce([other == winners[0] for other in winners[1:]])
    certain = alike & (np.minimum.reduce(corners_of(gate, rows, cols)) >= 1)
    # No gate of any map is open around the block: it is empty, whichever is the largest.
    empty = np.maximum.reduce(corners_of(gates.max(0), rows, cols)) < 1
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
    """(N, C) positions of the maps, rising, two or more; a block with fewer repeats its last."""
    corners: NDArray[np.float32]
    """(4, N, C) their values at the cells around."""


def _open_blocks(
    values: NDArray[np.float32], gates: NDArray[np.float32], undecided: NDArray[np.bool_]
) -> Iterator[_OpenBlocks]:
    """The undecided blocks with the maps that can win there, in groups of equal work."""
    row, col = np.nonzero(undecided)
    cells = cells_around(row, col, values.shape[1:])
    around = np.stack([values[:, r, c] for r, c in cells])  # (4, K, N)
    # A mean lies between the least and the largest: below another's least one cannot win.
    can_win = around.max(0) >= around.min(0).max(0)  # (K, N)
    block, classes = np.nonzero(can_win.T)
    counts = can_win.sum(0)  # (N,)
    first = np.searchsorted(block, np.arange(len(counts)))
    gated = np.minimum.reduce([gates[:, r, c].min(0) for r, c in cells]) < 1  # (N,)
    # The first and the last block of an axis have half as many pixels more than the others.
    rim = (row == 0) | (col == 0) | (row == undecided.shape[0] - 1)
    rim |= col == undecided.shape[1] - 1
    groups = _groups(counts, gated, rim)
    for group in np.unique(groups):
        chosen = np.flatnonzero(groups == group)
        # Where there are fewer, the last comes again: it is not larger than itself.
        most = max(2, counts[chosen].max())
        place = np.minimum(np.arange(most), counts[chosen][:, None] - 1)
        own = classes[first[chosen][:, None] + place]  # (n, C)
        corners = around[:, own.T, chosen].swapaxes(1, 2)  # (4, n, C)
        yield _OpenBlocks(row[chosen], col[chosen], own, corners)


def _groups(
    counts: NDArray[np.intp], gated: NDArray[np.bool_], rim: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """A number for each block; those of one number are compared together.

    A group costs as its largest block, most maps and any gate; many groups cost calls. Nearly all
    blocks lie between two maps: only these are distinguished by size and gate.
    """
    several = np.minimum(np.ceil(np.log2(np.maximum(counts, 2))), 3).astype(np.intp)
    return np.where(several == 1, 2 * rim + gated, 2 + 2 * several)


def _compare(
    out: NDArray[np.uint16],
    blocks: _OpenBlocks,
    gates: NDArray[np.float32],
    rows: Blocks,
    cols: Blocks,
) -> None:
    """Fill undecided blocks of the frame pixel by pixel; blocks are the last axis of all arrays."""
    pixels = int(rows.counts[blocks.row].max()) * int(cols.counts[blocks.col].max())
    step = max(1, _AT_ONCE // pixels)
    flat = out.reshape(-1)
    for start in range(0, len(blocks.row), step):
        part = slice(start, start + step)
        row, col, classes = blocks.row[part], blocks.col[part], blocks.classes[part].T  # (C, n)
        y, x = rows.pixels(row), cols.pixels(col)  # (R, n), (S, n)
        shares = rows.share[y], cols.share[x]
        around = cells_around(row, col, gates.shape[1:])
        corners = blocks.corners[:, part]  # (4, n, C)
        own = classes if len(gates) > 1 else np.zeros_like(classes)
        gate = _gate(gates, own[0], around, shares)
        # The first two by their difference, which is one map to read instead of two.
        better = _between(corners[..., 1] - corners[..., 0], *shares) > 0  # (R, S, n)
        numbers = (classes + 1).astype(np.uint16)  # (C, n)
        winner = np.where(better, numbers[1], numbers[0])
        if len(gates) > 1:
            gate = np.where(better, _gate(gates, own[1], around, shares), gate)
        if len(classes) > 2:
            best = np.maximum(*(_between(corners[..., k], *shares) for k in (0, 1)))
        for k in range(2, len(classes)):
            value = _between(corners[..., k], *shares)
            better = value > best
            winner = np.where(better, numbers[k], winner)
            np.maximum(best, value, out=best)
            if len(gates) > 1:
                gate = np.where(better, _gate(gates, own[k], around, shares), gate)
        if gate.shape == winner.shape:
            winner *= gate >= 1
        # One index is faster than two.
        flat[(y * out.shape[1])[:, None] + x] = winner


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
    """(4, n) cells at the pixels of n blocks, (R, S, n): columns first, then rows.

    In fewer steps than `lerp`: the last bit may differ.
    """
    top = corners[0] + (corners[1] - corners[0]) * right  # (S, n)
    low = corners[2] + (corners[3] - corners[2]) * right
    between: NDArray[np.float32] = (low - top) * down[:, None]  # (R, S, n)
    between += top
    return between
