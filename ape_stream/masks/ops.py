"""Crop, paste, measure and outline masks, and paint many into one map.

A 1080p mask is 2 MB dense and its crop a few per cent of that, so nothing here touches a pixel
outside the crop unless the caller asks for a dense array (`paste`, `label_map`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ape_stream.values.instances import Mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_stream.values.instances import Instances

__all__ = [
    "Polygon",
    "area",
    "box",
    "boxes",
    "crop",
    "empty",
    "extents",
    "label_map",
    "paint_order",
    "paste",
    "polygons",
    "window",
]


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """One connected part of a mask as outlines through pixel centres."""

    outer: NDArray[np.int32]
    """(P, 2) int32, x y in pixels of the frame; a single pixel has P = 1."""
    holes: tuple[NDArray[np.int32], ...]
    """Outlines of the holes, each (Q, 2) int32 along the mask's pixels around the hole."""


def crop(dense: NDArray[np.bool_]) -> Mask:
    """Cut a (H, W) bool mask to the box of its true pixels; all false gives the empty mask."""
    # OpenCV knows no bool; the bytes are the same, so a view will do.
    x, y, w, h = cv2.boundingRect(np.ascontiguousarray(dense).view(np.uint8))
    # A copy: a view would keep the whole dense mask in memory.
    return Mask(np.array(dense[y : y + h, x : x + w]), x, y) if w else empty()


def empty() -> Mask:
    """The mask without a true pixel."""
    return Mask(np.zeros((0, 0), np.bool_))


def extents(found: Instances) -> tuple[Mask, ...]:
    """The N masks, or where a model gives boxes only, the pixels that each box touches."""
    if found.masks is not None:
        return found.masks
    return tuple(_box_mask(box, found.size) for box in found.boxes)


def _box_mask(box: NDArray[np.float32], size: tuple[int, int]) -> Mask:
    """The pixels of the frame that a box (x1 y1 x2 y2, max exclusive) touches."""
    height, width = size
    x1, y1 = np.clip(np.floor(box[:2]), 0, (width, height)).astype(int).tolist()
    x2, y2 = np.clip(np.ceil(box[2:]), 0, (width, height)).astype(int).tolist()
    return Mask(np.ones((max(0, y2 - y1), max(0, x2 - x1)), np.bool_), x1, y1)


def paste(mask: Mask, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask as a dense (H, W) bool array of `size` = (H, W).

    Raises:
        ValueError: the mask does not fit into the frame.
    """
    dense = np.zeros(size, np.bool_)
    dense[window(mask, size)] = mask.bitmap
    return dense


def window(mask: Mask, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a (H, W) frame that the crop covers.

    Raises:
        ValueError: the mask does not fit into the frame.
    """
    h, w = mask.bitmap.shape
    if mask.y + h > size[0] or mask.x + w > size[1]:
        raise ValueError(
            f"a {w}x{h} mask at ({mask.x}, {mask.y}) is outside a {size[1]}x{size[0]} frame"
        )
    return slice(mask.y, mask.y + h), slice(mask.x, mask.x + w)


def area(mask: Mask) -> int:
    """Number of true pixels."""
    return int(np.count_nonzero(mask.bitmap))


def box(mask: Mask) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 of the crop in pixels, x2 and y2 exclusive; zeros for the empty mask."""
    h, w = mask.bitmap.shape
    return mask.x, mask.y, mask.x + w, mask.y + h


def boxes(masks: Sequence[Mask]) -> NDArray[np.float32]:
    """The boxes of N masks, (N, 4) float32, x1 y1 x2 y2 in pixels."""
    return np.array([box(mask) for mask in masks], np.float32).reshape(-1, 4)  # (0, 4) for none


def polygons(mask: Mask) -> list[Polygon]:
    """The connected parts (8-neighbours) of a mask with their holes.

    `cv2.fillPoly(canvas, [p.outer, *p.holes], 1)` for every part gives the mask back exactly:
    cv2's outlines run through the mask's own border pixels and fillPoly draws its outlines too.
    """
    if mask.bitmap.size == 0:
        return []
    outlines, tree = cv2.findContours(
        mask.bitmap.view(np.uint8),
        cv2.RETR_CCOMP,
        cv2.CHAIN_APPROX_SIMPLE,
        offset=(mask.x, mask.y),
    )
    # RETR_CCOMP has two levels: parts without a parent, and the holes of a part as its children.
    points = [np.asarray(outline, np.int32).reshape(-1, 2) for outline in outlines]
    parents = tree[0, :, 3]  # (outlines,) index of the parent, -1 for none
    return [
        Polygon(points[k], tuple(points[j] for j in np.flatnonzero(parents == k)))
        for k in np.flatnonzero(parents < 0)
    ]


def paint_order(masks: Sequence[Mask]) -> NDArray[np.intp]:
    """Positions from the largest to the smallest mask: small ones end up on top.

    Of two equal ones the later is painted first, as `supervision` does.
    """
    # Flipped, not sorted by the negative area: only so the later of two equal ones comes first.
    return np.flip(np.argsort([area(mask) for mask in masks], kind="stable")).astype(np.intp)


def label_map(
    masks: Sequence[Mask], size: tuple[int, int], values: Sequence[int] | None = None
) -> NDArray[np.uint16]:
    """Paint masks into one (H, W) uint16 map, small ones over large ones; 0 = no mask.

    Args:
        masks: N masks inside the frame.
        size: Height and width of the frame, pixels.
        values: What each mask paints, 1..65535; None paints position + 1.

    Raises:
        ValueError: a mask is outside the frame, or a value does not fit.
    """
    painted = np.zeros(size, np.uint16)
    numbers = range(1, len(masks) + 1) if values is None else values
    if any(not 1 <= number <= 0xFFFF for number in numbers):
        raise ValueError("a label map holds the values 1..65535 only")
    for k in paint_order(masks):
        target = painted[window(masks[k], size)]
        np.copyto(target, numbers[int(k)], where=masks[k].bitmap)
    return painted
