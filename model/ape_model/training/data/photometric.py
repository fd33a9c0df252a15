"""Changes of light, colour and sharpness before an image is learnt from; no region moves.

Brightness, contrast, saturation and hue change as in SSD (Liu et al. 2016, section 2.2); blur and
JPEG stand for cheap cameras and compressed streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import random

    from numpy.typing import NDArray

__all__ = ["photometric"]

BRIGHTNESS = 32.0
"""Most that is added to every channel, 0..255."""
CONTRAST = (0.6, 1.4)
"""Least and largest factor."""
SATURATION = (0.6, 1.4)
"""Least and largest factor."""
HUE = 9.0
"""Most that the hue turns, in OpenCV's half degrees, 0..180."""
BLUR_PX = (0.3, 1.2)
"""Standard deviation, pixels."""
JPEG_QUALITY = (40, 95)
"""Least and largest quality."""
RARE = 0.2
"""Share of the images that are blurred, and of those that are compressed."""


def photometric(image: NDArray[np.uint8], rng: random.Random) -> NDArray[np.uint8]:
    """Change light, colour and sharpness at random.

    Args:
        image: (H, W, 3) blue-green-red.
        rng: Source of chance.

    Returns:
        (H, W, 3) blue-green-red; a new array.
    """
    changed = _coloured(_lit(image, rng), rng)
    if rng.random() < RARE:
        blurred = cv2.GaussianBlur(changed, (0, 0), rng.uniform(*BLUR_PX))
        changed = np.asarray(blurred, np.uint8)
    if rng.random() < RARE:
        changed = _compressed(changed, rng.randint(*JPEG_QUALITY))
    return changed


def _lit(image: NDArray[np.uint8], rng: random.Random) -> NDArray[np.uint8]:
    """Contrast around the middle grey, and brightness."""
    contrast, brightness = rng.uniform(*CONTRAST), rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    levels = (np.arange(256) - 127.5) * contrast + 127.5 + brightness
    return np.asarray(cv2.LUT(image, levels.round().clip(0, 255).astype(np.uint8)), np.uint8)


def _coloured(image: NDArray[np.uint8], rng: random.Random) -> NDArray[np.uint8]:
    """Saturation and hue."""
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
    # Tables of all 256 values, which OpenCV looks up: each is computed once and not per pixel.
    turned = (np.arange(256) + round(rng.uniform(-HUE, HUE))) % 180  # hue is a circle
    scaled = (np.arange(256) * rng.uniform(*SATURATION)).round().clip(0, 255)
    parts = [
        cv2.LUT(hue, turned.astype(np.uint8)),
        cv2.LUT(saturation, scaled.astype(np.uint8)),
        value,
    ]
    return np.asarray(cv2.cvtColor(cv2.merge(parts), cv2.COLOR_HSV2BGR), np.uint8)


def _compressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """The image after JPEG of this quality, 1..100."""
    done, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done  # noqa: S101 (JPEG holds every uint8 image)
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
