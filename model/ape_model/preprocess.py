"""Frames to network input, pixel for pixel as the official models were fed.

BGR is flipped to RGB, the long side becomes the canvas side (small frames grow), resampled by
Pillow's antialiased bilinear filter on bytes; then normalised; then zero-padded right and bottom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ape_model.config import ApeConfig

__all__ = ["fitted_size", "normalise", "prepare", "resize_rgb"]


def fitted_size(size: tuple[int, int], canvas: int) -> tuple[int, int]:
    """Height and width of an image of `size` (height, width) whose long side becomes `canvas`."""
    # In this order of operations, as the official resize does: rounding depends on it.
    scale = canvas / min(size)
    height, width = (scale * side for side in size)
    shrink = canvas / max(height, width)
    if shrink < 1:
        height, width = height * shrink, width * shrink
    return max(1, int(height + 0.5)), max(1, int(width + 0.5))


def resize_rgb(bgr: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) BGR bytes to (height, width, 3) RGB bytes."""
    rgb = Image.fromarray(np.ascontiguousarray(bgr[..., ::-1]))
    return np.asarray(rgb.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def normalise(rgb: Tensor, config: ApeConfig) -> Tensor:
    """(3, H, W) RGB, 0..255, any float dtype, minus the mean over the deviation."""
    mean, std = (torch.tensor(v).to(rgb) for v in (config.pixel_mean, config.pixel_std))
    return (rgb - mean[:, None, None]) / std[:, None, None]


def prepare(
    frames: Sequence[NDArray[np.uint8]], config: ApeConfig, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
    """Make one batch of frames.

    Args:
        frames: (H, W, 3) BGR bytes each, of any sizes.
        config: of the model that will see them.
        dtype: of the batch.

    Returns:
        (B, 3, rows, columns) normalised RGB, and height and width of each frame inside it.
    """
    sizes = tuple(fitted_size(frame.shape[:2], config.canvas) for frame in frames)
    batch = torch.zeros(len(frames), 3, *_padded(sizes, config), dtype=dtype)
    for place, frame, (height, width) in zip(batch, frames, sizes, strict=True):
        rgb = torch.from_numpy(resize_rgb(frame, (height, width)).copy()).permute(2, 0, 1)
        place[:, :height, :width] = normalise(rgb.to(dtype), config)
    return batch, sizes


def _padded(sizes: Sequence[tuple[int, int]], config: ApeConfig) -> tuple[int, int]:
    """The whole square, or the least multiple of the grain that holds all sizes."""
    if config.grain is None:
        return config.canvas, config.canvas
    rows, cols = (
        -(-max(sides) // config.grain) * config.grain for sides in zip(*sizes, strict=True)
    )
    return rows, cols
