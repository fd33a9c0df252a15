"""The best of several low-resolution maps at every pixel of the frame, on a GPU.

The plain form of `ape_stream.masks.argmax_upsampled`, with the same arithmetic: every map is
upsampled. A GPU does that faster than it could choose which pixels to leave out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["argmax_upsampled"]

_VALUES_AT_ONCE = 2**26
"""Upsampled values held at a time (256 MB)."""


def argmax_upsampled(
    values: Tensor, gates: Tensor, size: tuple[int, int], filled: tuple[float, float]
) -> Tensor:
    """Which of the upsampled maps is the largest at each pixel, if its gate is open there.

    Args:
        values: (K, h, w) float32, at least one map.
        gates: (K, h, w) or (1, h, w) float32: open from 1 on.
        size: Height and width of the frame, pixels.
        filled: Rows and columns of the maps that the frame fills.

    Returns:
        (H, W) int32: 0 where the gate of the largest is closed, else its position + 1.
    """
    at_once = max(1, _VALUES_AT_ONCE // (size[0] * size[1]))
    best = winner = gate = None
    for first in range(0, len(values), at_once):
        part = _upsample(values[first : first + at_once], size, filled)  # (k, H, W)
        value, index = part.max(0)
        own = _gate(gates, first, index, at_once, size, filled)
        if best is None or winner is None or gate is None:
            best, winner, gate = value, index, own
            continue
        # Not `>=`: of equal ones the first wins.
        better = value > best
        best = torch.where(better, value, best)
        winner = torch.where(better, index + first, winner)
        gate = torch.where(better, own, gate)
    if winner is None or gate is None:
        return torch.zeros(size, dtype=torch.int32, device=values.device)
    return torch.where(gate >= 1, winner + 1, 0).to(torch.int32)


def _gate(
    gates: Tensor,
    first: int,
    index: Tensor,
    at_once: int,
    size: tuple[int, int],
    filled: tuple[float, float],
) -> Tensor:
    """The upsampled gate of the map at `first + index`, (H, W)."""
    if len(gates) == 1:
        return _upsample(gates, size, filled)[0]
    part = _upsample(gates[first : first + at_once], size, filled)
    return part.gather(0, index[None])[0]


def _upsample(maps: Tensor, size: tuple[int, int], filled: tuple[float, float]) -> Tensor:
    """(k, h, w) maps at every pixel, (k, H, W): columns first, then rows, each step rounded."""
    (top, bottom, down), (left, right, across) = (
        _axis(pixels, share, cells, maps.device)
        for pixels, share, cells in zip(size, filled, maps.shape[1:], strict=True)
    )
    wide = maps[:, :, left] * (1 - across) + maps[:, :, right] * across  # (k, h, W)
    down = down[:, None]
    return wide[:, top] * (1 - down) + wide[:, bottom] * down


def _axis(
    pixels: int, filled: float, cells: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Cell before, cell after and its weight, for every pixel of an axis (see `from_logits`)."""
    # The scale is rounded to float32 as on the CPU; filled on the device, where no copy waits.
    scale = torch.full((), filled / pixels, dtype=torch.float32, device=device)
    at = ((torch.arange(pixels, dtype=torch.float32, device=device) + 0.5) * scale - 0.5).clamp(0)
    lower = at.long().clamp(max=cells - 1)
    return lower, (lower + 1).clamp(max=cells - 1), at - lower
