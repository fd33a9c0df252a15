"""Masks as the shapes that formats hold: polygons at pixel edges, one ring with seams, flat maps.

Two conventions of polygons are exact, each for its own readers. Readers that draw with OpenCV or
PIL (LabelMe, YOLO) colour the outline itself: their points are pixel centres (`masks.polygons`).
Readers that follow COCO (pycocotools, CVAT, Datumaro) take coordinates as continuous, pixel i from
i to i + 1: their points are pixel corners (`edge_polygons`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from ape_stream import masks
from ape_stream.errors import ConfigError
from ape_stream.types import Mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.formats.writer import Image, Losses

__all__ = ["COLOURS", "all_masks", "edge_polygons", "flatten", "seamed_ring", "visible_masks"]


def edge_polygons(mask: Mask) -> list[masks.Polygon]:
    """The connected parts of a mask as outlines along pixel edges, the largest part first.

    As `masks.polygons`, but corners: a single pixel at (x, y) is the square from (x, y) to
    (x + 1, y + 1).
    """
    # Every pixel as 2x2: the outline through their centres visits, of each corner of the mask,
    # the centre that is nearest. Columns 2i and 2i + 1 are those next to the edges i and i + 1.
    if not mask.bitmap.size:
        return []
    pixels = mask.bitmap.view(np.uint8)
    double = cv2.resize(pixels, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST).view(np.bool_)
    parts = [
        masks.Polygon(_corners(part.outer), tuple(map(_corners, part.holes)))
        for part in masks.polygons(Mask(double, 2 * mask.x, 2 * mask.y))
    ]
    return sorted(parts, key=lambda part: -_inside(part.outer))


def _inside(ring: NDArray[np.int32]) -> float:
    return float(cv2.contourArea(ring))


def _corners(outline: NDArray[np.int32]) -> NDArray[np.int32]:
    """From centres of doubled pixels to corners of pixels, without points on a straight line."""
    points = (outline + 1) >> 1  # (P, 2)
    steps = np.diff(points, axis=0, append=points[:1])
    points, steps = points[moves := steps.any(1)], steps[moves]
    # A point stays where the step from it is not along the step to it.
    before = np.concatenate([steps[-1:], steps[:-1]])
    turns = before[:, 0] * steps[:, 1] != before[:, 1] * steps[:, 0]
    corners: NDArray[np.int32] = points[turns]
    return corners


def seamed_ring(parts: list[masks.Polygon], mask: Mask) -> NDArray[np.int32]:
    """All outlines of a mask as one ring, (P, 2) int32 pixel centres.

    `cv2.fillPoly(canvas, [ring], 1)` gives a connected mask back exactly. A seam leads to each
    hole and back: by the even-odd rule it cancels itself, and its own pixels are of the mask, as
    it runs straight left from the hole. A seam between two parts draws a line where no mask is.

    Args:
        parts: `masks.polygons(mask)`, at least one.
        mask: The mask.
    """
    rings = [_with_holes(part, mask) for part in parts]
    ring = rings[0]
    for other in rings[1:]:
        ring = np.concatenate([ring, ring[:1], other, other[:1], ring[:1]])
    return ring


def _with_holes(part: masks.Polygon, mask: Mask) -> NDArray[np.int32]:
    ring = part.outer
    # From left to right: what a seam meets on its left is in the ring already.
    for hole in sorted(part.holes, key=lambda hole: (int(hole[:, 0].min()), int(hole[0, 1]))):
        start = int(hole[:, 0].argmin())
        x, y = hole[start]
        row = mask.bitmap[y - mask.y, : x - mask.x + 1]
        outside = np.flatnonzero(~row)
        end = np.array([[mask.x + (int(outside[-1]) + 1 if len(outside) else 0), y]], np.int32)
        at = _segment(ring, end[0]) + 1
        loop = np.concatenate([end, np.roll(hole, -start, 0), hole[start : start + 1], end])
        ring = np.concatenate([ring[:at], loop, ring[at:]])
    return ring


def _segment(ring: NDArray[np.int32], point: NDArray[np.int32]) -> int:
    """The side of a ring, by the position of its first point, on which a point lies."""
    after = np.roll(ring, -1, 0)
    along, to = after - ring, point - ring
    straight = along[:, 0] * to[:, 1] == along[:, 1] * to[:, 0]
    within = (np.minimum(ring, after) <= point) & (point <= np.maximum(ring, after))
    return int(np.flatnonzero(straight & within.all(1))[0])


def flatten(image: Image, values: list[int], losses: Losses) -> NDArray[np.uint16]:
    """Paint an image's regions into one (H, W) uint16 map, small ones over large ones.

    Args:
        image: The image.
        values: What each region paints, 1..65535.
        losses: Where regions that others cover, in part or whole, are counted.

    Raises:
        ConfigError: the regions are boxes without masks.
    """
    size = image.record.size
    regions = all_masks(image)
    painted = masks.label_map(regions, size, values)
    for region, mask, value in zip(image.regions, regions, values, strict=True):
        own = (painted[masks.window(mask, size)] == value) & mask.bitmap
        seen = int(np.count_nonzero(own))
        losses.add("regions partly covered by others", 0 < seen < region.area)
        losses.add("regions wholly covered by others", 0 == seen < region.area)
    return painted


def all_masks(image: Image) -> list[Mask]:
    """The masks of an image's regions.

    Raises:
        ConfigError: the regions are boxes without masks.
    """
    found = [region.mask for region in image.regions if region.mask is not None]
    if len(found) < len(image.regions):
        raise ConfigError(
            f"{image.record.stream!r} has boxes without masks, and this format holds masks: choose"
            " one that holds boxes, such as coco, yolo-detect, voc, mot or cvat-images"
        )
    return found


def visible_masks(image: Image, losses: Losses) -> list[Mask]:
    """The masks of an image's regions without what others cover."""
    painted = flatten(image, list(range(1, len(image.regions) + 1)), losses)
    visible = []
    for value, mask in enumerate(all_masks(image), start=1):
        part = masks.crop(painted[masks.window(mask, image.record.size)] == value)
        visible.append(Mask(part.bitmap, part.x + mask.x, part.y + mask.y))
    return visible


def _colours() -> bytes:
    """The colour map of Pascal VOC: bits of an index go to red, green and blue in turn."""
    index = np.arange(256, dtype=np.uint8)[:, None]
    table = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        table |= (index >> np.array([0, 1, 2], np.uint8) & 1) << (7 - bit)
        index >>= 3
    return table.tobytes()


COLOURS = _colours()
"""256 colours, three bytes each."""
