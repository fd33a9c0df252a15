"""Pictures of any size to one normalised, padded batch (detectron2's ResizeShortestEdge + pad)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["fitted_size", "prepare_images", "resize"]


def fitted_size(height: int, width: int, canvas: int) -> tuple[int, int]:
    """Height and width, pixels, of a picture whose long edge is scaled to `canvas`.

    In two steps as the official code computes it, so that it rounds alike; no side gets under 1.
    """
    scale = canvas / min(height, width)
    rows, cols = (canvas, scale * width) if height < width else (scale * height, canvas)
    longest = max(rows, cols)
    if longest > canvas:
        rows, cols = rows * (canvas / longest), cols * (canvas / longest)
    return max(1, int(rows + 0.5)), max(1, int(cols + 0.5))


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale (H, W, 3) uint8 to `size` = (rows, columns) by Pillow's antialiased bilinear filter.

    OpenCV's bilinear filter does not average when shrinking, and is not what the models saw.
    """
    if image.shape[:2] == size:
        return image
    scaled = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(scaled)


def prepare_images(
    images: Sequence[NDArray[np.uint8]],
    canvas: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    grain: int | None = None,
) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
    """Make one batch.

    Args:
        images: B pictures, each (H, W, 3) uint8 blue-green-red.
        canvas: long edge of every picture in the batch, pixels.
        mean: of red, green, blue, on the 0..255 scale.
        std: likewise.
        grain: pad no further than to a multiple of this; None pads to the full square.

    Returns:
        (B, 3, rows, columns) float32, normalised RGB, zero-padded right and bottom, and the height
        and width of each picture inside it.
    """
    sizes = tuple(fitted_size(*image.shape[:2], canvas) for image in images)
    rows, cols = (canvas, canvas) if grain is None else _common(sizes, grain)
    batch = torch.zeros(len(images), 3, rows, cols)
    low, scale = _column(mean), _column(std)
    for target, image, (h, w) in zip(batch, images, sizes, strict=True):
        rgb: Any = np.ascontiguousarray(resize(image, (h, w))[:, :, ::-1])
        target[:, :h, :w] = (torch.from_numpy(rgb).permute(2, 0, 1).float() - low) / scale
    return batch, sizes


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values)[:, None, None]


def _common(sizes: Sequence[tuple[int, int]], grain: int) -> tuple[int, int]:
    """The smallest multiple of `grain` that holds all sizes."""
    rows, cols = (-(-max(sides) // grain) * grain for sides in zip(*sizes, strict=True))
    return rows, cols
