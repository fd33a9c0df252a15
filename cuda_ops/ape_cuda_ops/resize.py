"""Pillow's antialiased bilinear resize of bytes, equal to Pillow's to the byte on every device.

One axis goes after the other, rounded to bytes in between. Which axis comes first decides how it
rounds, and depends on Pillow's version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import __version__ as pillow_version

from ape_cuda_ops import registry
from ape_cuda_ops.backends import reference

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["resize_bytes", "resize_tensor"]

CHOOSES_ORDER = int(pillow_version.partition(".")[0]) >= 13
"""Since version 13 Pillow may resize the height before the width (its pull request 9549)."""


def resize_bytes(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8 to (height, width, 3) uint8 on the CPU."""
    kernels = registry.choose(torch.device("cpu"))
    image = np.ascontiguousarray(image)
    for axis in _axes(image.shape, size):
        image = kernels.resize_axis(image, axis, size[axis])
    return image


def resize_tensor(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (H, W, 3) uint8 to (height, width, 3) uint8; the host waits for no value of a GPU."""
    for axis in _axes(image.shape, size):
        image = reference.resize_axis(image, axis, size[axis])
    return image


def _axes(given: tuple[int, ...], wanted: tuple[int, int]) -> list[int]:
    """The axes to resize, in the order of the installed Pillow: first that where more rows go."""
    fewer_rows, fewer_columns = given[0] - wanted[0], given[1] - wanted[1]
    rows_first = CHOOSES_ORDER and fewer_rows > max(0, 2 * fewer_columns)
    return [axis for axis in ((0, 1) if rows_first else (1, 0)) if given[axis] != wanted[axis]]
