"""Frames to network input, pixel for pixel as the official models were fed.

The long side becomes the canvas side (small frames grow; nano gives wide frames a longer side, see
`network_size`), resampled by Pillow's antialiased bilinear filter on bytes; BGR is flipped to RGB,
normalised, then zero-padded right and bottom. On a GPU all of it happens there: bytes are uploaded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from ape_cuda_ops.resize import resize_bytes, resize_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ape_model.config import ApeConfig

__all__ = [
    "fitted_size",
    "group_by_canvas",
    "make_batch",
    "network_size",
    "normalise",
    "padded_size",
]


def fitted_size(size: tuple[int, int], canvas: int) -> tuple[int, int]:
    """Height and width of an image of `size` (height, width) whose long side becomes `canvas`."""
    # In this order of operations, as the official resize does: rounding depends on it.
    scale = canvas / min(size)  # the short side to the canvas, then the long side limits it
    height, width = (scale * side for side in size)
    shrink = canvas / max(height, width)
    if shrink < 1:
        height, width = height * shrink, width * shrink
    return max(1, int(height + 0.5)), max(1, int(width + 0.5))


def network_size(size: tuple[int, int], config: ApeConfig) -> tuple[int, int]:
    """Height and width at which the network sees an image of `size` (height, width)."""
    return fitted_size(size, _long_side(size, config))


def _long_side(size: tuple[int, int], config: ApeConfig) -> int:
    """Pixels of the long side.

    By the long side alone an image of 16:9 has three quarters of the pixels of one of 4:3, and its
    things are as much smaller. With `wide_area`, it is the longest side whose padded canvas holds
    no more pixels than that share of the square; an image is not enlarged for it.
    """
    if config.wide_area is None or config.size_divisor is None:
        return config.canvas
    unit, pixels = config.size_divisor, config.wide_area * config.canvas**2
    long, short = max(size), min(size)
    # For each length of the padded canvas: the largest image in it, given the rows that fit.
    fitting = (
        min(columns, long, int(pixels // columns // unit * unit * long / short))
        for columns in range(config.canvas, config.canvas * 3 // 2 + 1, unit)
    )
    return max(config.canvas, *fitting)


def normalise(rgb: Tensor, config: ApeConfig) -> Tensor:
    """(3, H, W) RGB, 0..255, any float dtype, minus the mean over the deviation."""
    mean, std = _statistics(config.pixel_mean, config.pixel_std, rgb.dtype, rgb.device)
    return (rgb - mean) / std


@lru_cache(maxsize=8)  # a copy to a GPU would make every frame wait
def _statistics(
    mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the channels, (3, 1, 1) each."""
    columns = torch.tensor([mean, std], dtype=dtype, device=device)[..., None, None]
    return columns[0], columns[1]


def make_batch(
    frames: Sequence[NDArray[np.uint8]],
    config: ApeConfig,
    dtype: torch.dtype = torch.float32,
    upload: Callable[[NDArray[np.uint8]], Tensor] | None = None,
) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
    """Make one batch of frames.

    Args:
        frames: (H, W, 3) BGR bytes each, of any sizes.
        config: Of the model.
        dtype: Of the batch; pixels are normalised in float32 and then rounded to it.
        upload: Brings a frame to a GPU, which then does the rest; None for a batch on the CPU.

    Returns:
        (B, 3, rows, columns) normalised RGB, and height and width of each frame inside it.
    """
    sizes = tuple(network_size(frame.shape[:2], config) for frame in frames)
    # The filter does not care about channel order: flip afterwards, where there are fewer pixels.
    fitted = [
        _planes(resize_bytes(frame, size))
        if upload is None
        else resize_tensor(upload(frame), size).permute(2, 0, 1).flip(0)
        for frame, size in zip(frames, sizes, strict=True)
    ]  # (3, height, width) each
    shape = len(frames), 3, *padded_size(sizes, config)
    batch = torch.zeros(shape, dtype=dtype, device=fitted[0].device)
    for canvas, rgb, (height, width) in zip(batch, fitted, sizes, strict=True):
        canvas[:, :height, :width] = normalise(rgb.float(), config)
    return batch, sizes


def _planes(bgr: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) BGR to (3, H, W) RGB, contiguous: arithmetic is three times as fast there."""
    blue, green, red = cv2.split(bgr)
    return torch.from_numpy(np.stack((red, green, blue)))


def group_by_canvas(
    frames: Sequence[NDArray[np.uint8]], config: ApeConfig
) -> list[tuple[int, ...]]:
    """Indices of the frames that can share a batch: each is padded no more than it would be alone.

    Padding is seen (by convolutions at its border, by attention, by norms over the whole map), so
    in a batch of another shape the same frame would give another result.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, frame in enumerate(frames):
        canvas = padded_size([network_size(frame.shape[:2], config)], config)
        groups.setdefault(canvas, []).append(index)
    return [tuple(group) for group in groups.values()]


def padded_size(sizes: Sequence[tuple[int, int]], config: ApeConfig) -> tuple[int, int]:
    """Rows and columns of the canvas for images of these sizes (height, width).

    It is the whole square, or the least multiples of `size_divisor` that hold all of them.
    """
    if config.size_divisor is None:
        return config.canvas, config.canvas
    rows, cols = (
        -(-max(sides) // config.size_divisor) * config.size_divisor
        for sides in zip(*sizes, strict=True)
    )
    return rows, cols
