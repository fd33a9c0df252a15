"""Small drawn images: a grey ground, and shapes in colours that say their class."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from zlib import crc32

import cv2
import numpy as np

from ape_stream.files import written

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["HEIGHT", "WIDTH", "Scene", "Shape", "scenes", "write_image"]

HEIGHT: Final = 48
WIDTH: Final = 64
_GROUND: Final = 110
"""Grey of the background."""
_CELLS: Final = tuple((row, column) for row in range(2) for column in range(3))
"""Each shape has a cell of its own, so that none covers another."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One object of an image."""

    kind: int
    """Position of its class."""
    box: tuple[int, int, int, int]
    """x, y, width, height in pixels, around the mask."""
    polygon: list[float]
    """x1, y1, x2, y2, ... of its outline."""
    mask: NDArray[np.bool_]
    """(HEIGHT, WIDTH)."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One image."""

    image: NDArray[np.uint8]
    """(HEIGHT, WIDTH, 3) blue-green-red."""
    shapes: tuple[Shape, ...]
    """At least one but for the last image of a set, which has none where that is allowed."""


def scenes(
    name: str, count: int, kinds: Sequence[int], *, most: int = 4, empty: bool = False
) -> list[Scene]:
    """Images that are the same at each call.

    Args:
        name: Of the task: decides what is drawn.
        count: How many images.
        kinds: Positions of the classes that occur.
        most: Most shapes of an image.
        empty: Whether the last of several images has no shape.
    """
    random = np.random.default_rng(crc32(name.encode()))
    drawn = []
    for k in range(count):
        least = 0 if empty and k and k == count - 1 else 1
        number = int(random.integers(least, most + 1)) if least else 0
        cells = random.permutation(len(_CELLS))[:number]
        # The first kinds in turn, so that few images show many classes.
        order = [kinds[(k * most + j) % len(kinds)] for j in range(number)]
        shapes = [
            _shape(random, _CELLS[cell], kind) for cell, kind in zip(cells, order, strict=True)
        ]
        drawn.append(Scene(_drawn(shapes), tuple(shapes)))
    return drawn


def _shape(random: np.random.Generator, cell: tuple[int, int], kind: int) -> Shape:
    height, width = HEIGHT // 2, WIDTH // 3
    h, w = random.integers(8, height - 3), random.integers(8, width - 3)
    y = int(cell[0] * height + random.integers(1, height - h))
    x = int(cell[1] * width + random.integers(1, width - w))
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + h, x : x + w] = True
    # Corners lie on the borders of pixels, so that polygon and mask are the same.
    polygon = [float(v) for v in (x, y, x + w, y, x + w, y + h, x, y + h)]
    return Shape(kind, (x, y, int(w), int(h)), polygon, mask)


def _drawn(shapes: Sequence[Shape]) -> NDArray[np.uint8]:
    image = np.full((HEIGHT, WIDTH, 3), _GROUND, np.uint8)
    for shape in shapes:
        # The golden ratio gives neighbouring classes hues that are far apart.
        hue = (shape.kind * 0.618034) % 1.0
        image[shape.mask] = [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.8, 0.9)]
    return image


def write_image(path: Path, image: NDArray[np.integer]) -> None:
    """Write a JPEG, PNG or TIFF, by the name's suffix.

    Raises:
        SinkError: it cannot be written.
    """
    _, data = cv2.imencode(path.suffix, image)
    with written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
