"""Images whose pixels show a wrong rounding, and the resize that ours must equal."""

import numpy as np
from PIL import Image


def noise(height, width, seed=0):
    """(height, width, 3) uint8 of extremes and steps, where rounding shows."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    image[random.random((height, width)) < 0.3] = 255
    return image


def pillow(image, size):
    """The image resized to a height and width by Pillow, bilinear."""
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
