"""Frames as the input of a network, as the image processors of transformers make it.

Those need torchvision or scipy, and are slow; the results are the same, see the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "normalised",
    "padded_square",
    "resized",
    "short_edge",
]

CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
"""Of red, green and blue, 0..1, as OpenAI's CLIP was trained."""
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""The same."""
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
"""Of red, green and blue, 0..1, of ImageNet's training images."""
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
"""The same."""


def normalised(rgb: NDArray[np.float32], mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(1, 3, H, W) float32 of an (H, W, 3) image in red-green-blue, 0..1."""
    scaled = (rgb - np.array(mean, np.float32)) / np.array(std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)[None]))


def padded_square(bgr: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """(side, side, 3) red-green-blue, 0..1: black below or right of it, then blurred and resized.

    As scikit-image resizes: a Gaussian of sigma (factor - 1) / 2 first, where it shrinks.
    """
    height, width = bgr.shape[:2]
    longest = max(height, width)
    square = np.zeros((longest, longest, 3), np.float32)
    square[:height, :width] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    square /= 255
    sigma = (longest / side - 1) / 2
    if sigma > 0:
        reach = 2 * int(4 * sigma + 0.5) + 1  # scipy cuts the kernel at 4 sigma
        square = cv2.GaussianBlur(square, (reach, reach), sigma, borderType=cv2.BORDER_REFLECT_101)
    return cv2.resize(square, (side, side), interpolation=cv2.INTER_LINEAR).clip(0, 1)


def resized(bgr: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W, 3) red-green-blue, 0..1, of this height and width, as Pillow resizes."""
    height, width = size
    rgb = Image.fromarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    small = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small, np.float32) / np.float32(255)


def short_edge(bgr: NDArray[np.uint8], short: int, longest: int) -> NDArray[np.float32]:
    """The image with a short edge of `short` pixels, or a long one of at most `longest`."""
    low, high = sorted(bgr.shape[:2])
    exact = min(float(short), longest * low / high)
    # As DETR rounds: the short edge to the nearest pixel, the long one down.
    long_pixels, short_pixels = int(exact * high / low), round(exact)
    is_tall = bgr.shape[0] > bgr.shape[1]
    return resized(bgr, (long_pixels, short_pixels) if is_tall else (short_pixels, long_pixels))
