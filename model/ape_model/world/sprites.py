"""Sprites: cut from the atlas, stored at three sizes, drawn by one affine warp.

Colours are premultiplied by alpha (Porter and Duff 1984): a warp that mixes neighbouring pixels
then mixes no colour of transparent ones into the sprite's edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import cos, radians, sin
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ape_model.world.words import ASSETS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Patch", "Pose", "cell_count", "draw", "paste"]

LEVELS = 3
"""Full, half and quarter size: the warp shrinks by at most two, where bilinear does not alias."""
CELL = 88
"""Side of an atlas cell at full size, pixels; see `build_atlas`."""
OPAQUE = 127
"""A pixel belongs to the sprite where its alpha (0..255) is above this."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Position, size and look of a sprite."""

    cell: int
    """Atlas cell."""
    x: float
    """Column of the centre in the frame, pixels."""
    y: float
    """Row of the centre in the frame, pixels."""
    side: float
    """Longer side of the upright sprite, pixels."""
    angle: float = 0.0
    """Counter-clockwise rotation, degrees."""
    flip: bool = False
    """Mirrored left to right."""
    light: float = 1.0
    """Brightness factor."""


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """The pixels of a sprite in its pose, cut to the frame."""

    colour: NDArray[np.uint8]
    """(h, w, 3) BGR, premultiplied by alpha."""
    alpha: NDArray[np.uint8]
    """(h, w), 0..255."""
    x: int
    """Left edge in the frame, pixels; >= 0."""
    y: int
    """Top edge in the frame, pixels; >= 0."""
    full_area: int
    """Opaque pixels of the whole sprite, also those outside the frame."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(h, w) bool: the pixels that belong to the sprite."""
        return self.alpha > OPAQUE

    @property
    def window(self) -> tuple[slice, slice]:
        """The patch's rows and columns in the frame."""
        height, width = self.alpha.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)


@cache
def _pyramid() -> tuple[NDArray[np.uint8], ...]:
    """Every cell at every level: LEVELS arrays (cells, side, side, 4) uint8, premultiplied BGRA."""
    raw = np.fromfile(ASSETS / "world.png", np.uint8)
    atlas = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
    if atlas is None or atlas.ndim != 3 or atlas.shape[2] != 4:
        raise ValueError(f"{ASSETS / 'world.png'} is not an RGBA image: reinstall the package")
    rows, columns = atlas.shape[0] // CELL, atlas.shape[1] // CELL
    # (rows * CELL, columns * CELL, 4) image -> (rows * columns, CELL, CELL, 4), row by row.
    cells = atlas.reshape(rows, CELL, columns, CELL, 4).swapaxes(1, 2).reshape(-1, CELL, CELL, 4)
    alpha = cells[..., 3:].astype(np.uint16)  # products of two bytes need 16 bits
    premultiplied = np.concatenate([(cells[..., :3] * alpha + 127) // 255, alpha], -1)  # rounded
    levels = [premultiplied.astype(np.uint8)]
    for _ in range(LEVELS - 1):
        half = levels[-1].shape[1] // 2
        shrunk = [cv2.resize(c, (half, half), interpolation=cv2.INTER_AREA) for c in levels[-1]]
        levels.append(np.stack(shrunk))
    return tuple(levels)


def cell_count() -> int:
    """Number of cells in the atlas, empty ones included."""
    return len(_pyramid()[0])


def _bounds(pose: Pose) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of the frame pixels that the rotated cell can cover."""
    turn = radians(pose.angle)
    # Half the side of the upright square around a turned one, and a pixel for interpolation.
    half = pose.side / 2 * (abs(cos(turn)) + abs(sin(turn))) + 1
    return (
        int(np.floor(pose.x - half)),
        int(np.floor(pose.y - half)),
        int(np.ceil(pose.x + half)),
        int(np.ceil(pose.y + half)),
    )


def draw(pose: Pose, size: tuple[int, int]) -> Patch | None:
    """Render a sprite, cut to a frame of (height, width); None where it is outside."""
    # The smallest level that need not be enlarged.
    level = 0
    while level < LEVELS - 1 and pose.side * 2 ** (level + 1) <= CELL:
        level += 1
    cell = _pyramid()[level][pose.cell]
    x1, y1, x2, y2 = _bounds(pose)
    scale, turn = pose.side / cell.shape[0], radians(pose.angle)
    c, s = scale * cos(turn), scale * sin(turn)
    mirror = -1.0 if pose.flip else 1.0
    centre = (cell.shape[0] - 1) / 2
    # Cell to frame: mirror, then scale and rotate about the cell's centre, then move.
    linear = np.array([[c * mirror, s], [-s * mirror, c]])  # rows point down, so -s turns left
    offset = np.array([pose.x - x1, pose.y - y1]) - linear @ (centre, centre)
    matrix = np.column_stack([linear, offset])
    warped = np.asarray(cv2.warpAffine(cell, matrix, (x2 - x1, y2 - y1)), np.uint8)
    full_area = int(np.count_nonzero(warped[..., 3] > OPAQUE))
    height, width = size
    cut = warped[max(0, -y1) : max(0, height - y1), max(0, -x1) : max(0, width - x1)]
    if cut.size == 0:
        return None
    alpha = cut[..., 3]
    colour = cut[..., :3]
    if pose.light != 1.0:
        # Premultiplied colour must stay within alpha, or light spills over soft edges.
        lit = np.asarray(cv2.convertScaleAbs(colour, alpha=pose.light), np.uint8)
        colour = np.minimum(lit, alpha[..., None])
    return Patch(colour, alpha, max(0, x1), max(0, y1), full_area)


def paste(image: NDArray[np.uint8], patch: Patch) -> None:
    """Lay a patch over a (H, W, 3) BGR image, in place."""
    # Porter and Duff's "over": premultiplied colour + what the alpha leaves of the image.
    target = image[patch.window]
    clear = 255 - patch.alpha.astype(np.uint16)
    target[:] = patch.colour + ((target * clear[..., None] + 127) // 255).astype(np.uint8)
