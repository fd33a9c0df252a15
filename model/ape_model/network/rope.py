"""Rotary position embedding over a two-dimensional token grid (EVA-02, section 3.1).

The first half of a head's channels turns with the row, the second half with the column; every
frequency turns one neighbouring pair of channels. Positions are stretched, so that a grid of any
side spans 0..reference: that is how a table for another grid is rebuilt.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

__all__ = ["Rope", "rope_table", "rotate", "table_on"]

THETA = 10_000.0  # base of the frequencies, as in RoFormer


def rope_table(rows: int, cols: int, head_dim: int, reference: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every token's angles.

    Args:
        rows: Height of the grid in tokens.
        cols: Width of the grid in tokens.
        head_dim: Channels of a head, a multiple of 4.
        reference: Positions run from 0 to this, exclusive.

    Returns:
        Two (rows * cols, head_dim) float32 tensors, row-major over the grid.
    """
    axis_dim = head_dim // 2
    frequency = 1.0 / THETA ** (torch.arange(0, axis_dim, 2).float() / axis_dim)  # (axis_dim/2,)
    row, col = (
        (torch.arange(side) / side * reference)[:, None] * frequency for side in (rows, cols)
    )
    # Twice each frequency: once for each channel of its pair.
    row = row.repeat_interleave(2, -1)[:, None].expand(rows, cols, axis_dim)
    col = col.repeat_interleave(2, -1)[None].expand(rows, cols, axis_dim)
    angle = torch.cat([row, col], dim=-1).reshape(rows * cols, head_dim)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring channel pairs of (..., T, D) by the (T, D) angles."""
    # (a, b) -> (a cos - b sin, b cos + a sin): multiplication by e^(i angle).
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return x * cos + turned * sin


@cache  # none is dropped: a CUDA graph that was captured with it reads it for good
def table_on(
    grid: tuple[int, int],
    head_dim: int,
    reference: int,
    dtype: torch.dtype,
    device: torch.device,
    whole: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """The table of a grid on a device, or its corner of the table of a `whole` grid."""
    whole, (rows, cols) = whole or grid, grid
    # A tensor made in inference mode could never be used in training later.
    with torch.inference_mode(mode=False):
        tables = rope_table(*whole, head_dim, reference)
        cos, sin = (t.unflatten(0, whole)[:rows, :cols].flatten(0, 1) for t in tables)
        return cos.to(device, dtype), sin.to(device, dtype)


class Rope(nn.Module):
    """The table of one grid; other grids get theirs rebuilt and kept."""

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, side: int, head_dim: int, reference: int) -> None:
        super().__init__()
        self.side, self.head_dim, self.reference = side, head_dim, reference
        cos, sin = rope_table(side, side, head_dim, reference)
        # Official checkpoints carry the tables, so they are part of the state.
        self.register_buffer("freqs_cos", cos)
        self.register_buffer("freqs_sin", sin)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Turn (B, heads, rows * cols, D) queries or keys by their position in `grid`."""
        if grid == (self.side, self.side):
            return rotate(x, self.freqs_cos, self.freqs_sin)
        return rotate(x, *table_on(grid, self.head_dim, self.reference, x.dtype, x.device))
