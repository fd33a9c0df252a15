"""Pillow's antialiased bilinear resize of bytes in integers, for images that are on a GPU.

Equal to Pillow's to the byte: weights of 22 bits after the point, one axis after the other, rounded
to bytes in between. Which axis comes first decides how it rounds, and depends on Pillow's version.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import numpy as np
import torch
from PIL import __version__ as pillow_version
from torch import Tensor

__all__ = ["resize_bytes"]

PRECISION = 22
"""Bits of a weight after the point."""
CHOOSES_ORDER = int(pillow_version.partition(".")[0]) >= 13
"""Since version 13 Pillow may resize the height before the width (its pull request 9549)."""


def resize_bytes(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (H, W, C) uint8 to (height, width, C) uint8; the host waits for no value."""
    for axis in (0, 1) if _rows_first((image.shape[0], image.shape[1]), size) else (1, 0):
        if image.shape[axis] != size[axis]:
            image = _resized(image, axis, size[axis])
    return image


def _rows_first(given: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether the installed Pillow resizes the height before the width: where more rows go."""
    fewer_rows, fewer_columns = given[0] - wanted[0], given[1] - wanted[1]
    return CHOOSES_ORDER and fewer_rows > max(0, 2 * fewer_columns)


def _resized(image: Tensor, axis: int, pixels: int) -> Tensor:
    cells = image.shape[axis]
    first, weights = _taps(cells, pixels, image.device)
    total: Tensor | int = 1 << (PRECISION - 1)  # one half: the shift below rounds to nearest
    for turn, weight in enumerate(weights):
        # A tap beyond the border has no weight: any cell will do.
        taken = image.index_select(axis, (first + turn).clamp_(max=cells - 1))
        total = total + taken.int().mul_(weight.view(-1, 1, 1) if axis == 0 else weight[:, None])
    # Weights are not negative and sum up to one but for rounding: no sum leaves the bytes.
    return (torch.as_tensor(total) >> PRECISION).to(torch.uint8)


@lru_cache(maxsize=16)  # a stream keeps its size
def _taps(cells: int, pixels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which cells of an axis each pixel reads, and how much.

    Returns:
        (pixels,) int64 first cells, and (taps, pixels) int32 weights in 2**-PRECISION.
    """
    scale = cells / pixels
    reach = max(scale, 1.0)  # the triangle widens when shrinking (antialiasing), never narrows
    centre = (np.arange(pixels) + 0.5) * scale
    # Ends are truncated after adding a half, in this order, as in Pillow's precompute_coeffs.
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + reach + 0.5).astype(np.int64), cells)
    taps = first + np.arange(2 * ceil(reach) + 1)[:, None]
    weights = np.maximum(1 - np.abs((taps - centre + 0.5) * (1.0 / reach)), 0) * (taps < end)
    total = np.zeros(pixels)
    for weight in weights:  # one after another: another order rounds otherwise
        total += weight
    whole = (weights / total * (1 << PRECISION) + 0.5).astype(np.int32)
    return torch.from_numpy(first).to(device), torch.from_numpy(whole).to(device)
