"""What the benchmarks of this package send: a picture like a room's, and ragged regions in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ape_stream.types import Frame, FrameResult, Instances, Mask, PromptSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SIZE", "picture", "scene"]

SIZE: Final = (1080, 1920)


def picture(rng: np.random.Generator, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Slow slopes and a camera's noise, so that JPEG makes of it what it makes of a room.

    Args:
        rng: Where the noise comes from.
        size: Height and width in pixels.
    """
    slopes = np.add.outer(np.linspace(40, 160, size[0]), np.linspace(0, 80, size[1]))
    return (slopes[:, :, None] + rng.integers(0, 12, (*size, 3))).astype(np.uint8)


def scene(regions: int, size: tuple[int, int] = SIZE) -> FrameResult:
    """A result of ragged blobs, about 51,000 pixels each in 1080p, at random places.

    Args:
        regions: How many.
        size: Height and width in pixels.
    """
    rng = np.random.default_rng(regions)
    height, width = 256 * size[0] // SIZE[0], 328 * size[1] // SIZE[1]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    blob = x**2 + y**2 + 0.1 * np.sin(40 * x) * np.cos(37 * y) < 0.75
    corners = rng.integers(0, (size[1] - width, size[0] - height), (regions, 2))
    masks = tuple(Mask(blob, int(left), int(top)) for left, top in corners)
    boxes = np.hstack([corners, corners + np.array([width, height])]).astype(np.float32)
    scores = rng.random(regions).astype(np.float32)
    found = Instances(boxes, scores, np.zeros(regions, np.int64), masks, size)
    return FrameResult(Frame(picture(rng, size), 0, 0.0), found, PromptSet.of("blob"))
