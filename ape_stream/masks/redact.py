"""Redaction: what masks cover is blurred or pixelated until it cannot be recognised.

Both reduce a region to a few cells: nothing finer is left in the image. A margin around each mask
goes with it, because a mask that is a few pixels too small would show an edge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from ape_stream.masks.ops import box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.values.instances import Mask

__all__ = ["redact"]

CELLS: Final = 8
"""Along the longer side of a region: a face of 8 cells is not recognised."""
CELL_SIDE: Final = 6
"""Pixels of a cell, at least: small regions have fewer cells."""
_MARGIN: Final = 0.06
"""In parts of a region's longer side; at least 3 pixels."""


def redact(image: NDArray[np.uint8], mask: Mask, *, smooth: bool) -> None:
    """Hide one region, in place.

    Args:
        image: (H, W, 3) uint8, writable.
        mask: The region, inside the image.
        smooth: Blurred; otherwise in square cells.
    """
    x1, y1, x2, y2 = box(mask)
    if x2 <= x1:
        return
    margin = max(3, round(_MARGIN * max(x2 - x1, y2 - y1)))
    top, left = max(0, y1 - margin), max(0, x1 - margin)
    part = image[top : y2 + margin, left : x2 + margin]  # a view
    covered = np.zeros(part.shape[:2], np.uint8)
    covered[y1 - top : y2 - top, x1 - left : x2 - left] = mask.bitmap
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    covered = np.asarray(cv2.dilate(covered, kernel), np.uint8)
    scale = min(1 / CELL_SIDE, CELLS / max(part.shape[:2]))
    cells = tuple(max(1, round(side * scale)) for side in part.shape[1::-1])
    small: NDArray[Any] = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
    way = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
    coarse = cv2.resize(small, part.shape[1::-1], interpolation=way)
    cv2.copyTo(coarse, covered, part)
