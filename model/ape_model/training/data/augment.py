"""What happens to an image before it is learnt from: jitter, mirror, copy-paste, stuff in parts.

Large-scale jitter and copy-paste are those of Ghiasi et al. 2021; stuff in connected parts is APE's
thing-stuff equalisation (section 3.4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from ape_stream.datasets.instances import Region

__all__ = [
    "Placement",
    "View",
    "compares",
    "fitted",
    "jittered",
    "mirror_words",
    "no_margin",
    "paste",
    "place",
    "split_regions",
]

Pixels = TypeVar("Pixels", np.uint8, np.int32)

LEAST_AREA = 16
"""A region that shows fewer pixels than this in a training image is not asked for."""
EDGE = 1.0
"""Standard deviation of the soft rim of a pasted thing, pixels."""
# "left" and "right" as words, also in "leftmost"; not in "bright" or "righteous".
_SIDES = re.compile(r"\b(left|right)(?=most\b|\b)", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}
# Words of position and rank; "est" finds superlatives. A word too many ("forest") costs only a
# crop that could have been.
_COMPARING = re.compile(
    r"\b(left|right|top|bottom|upper|lower|middle|center|centre|front|back|first|second|third"
    r"|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|leftmost|rightmost|topmost|\w{3,}est)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image lies on a canvas."""

    scale: float
    """Canvas pixels over image pixels."""
    top: int
    left: int
    """Of its first pixel, canvas pixels; negative where it is cut off."""
    mirrored: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """An image on a canvas."""

    image: NDArray[np.uint8]
    """(H, W, 3) blue-green-red."""
    ids: NDArray[np.int32]
    """(H, W): 1 + row of the region that shows, 0 for none."""
    regions: tuple[Region, ...]
    """What the rows mean; not all of them need to show."""


def fitted(given: tuple[int, int], size: tuple[int, int]) -> Placement:
    """Fit an image into a canvas, both (height, width), at its first pixel."""
    return Placement(min(size[0] / given[0], size[1] / given[1]), 0, 0)


def jittered(
    given: tuple[int, int],
    size: tuple[int, int],
    scale: tuple[float, float],
    rng: random.Random,
) -> Placement:
    """Draw a placement: large-scale jitter and a mirror half of the time.

    Args:
        given: Height and width of the image.
        size: Height and width of the canvas.
        scale: Least and largest size over the one that fits.
        rng: Source of chance.
    """
    factor = fitted(given, size).scale * rng.uniform(*scale)
    corner = []
    for side, room in zip(given, size, strict=True):
        spare = room - round(factor * side)
        # A smaller image lies anywhere inside the canvas (spare > 0), a larger one covers it all.
        corner.append(round(rng.uniform(min(0, spare), max(0, spare))))
    return Placement(factor, corner[0], corner[1], rng.random() < 0.5)


def no_margin(
    where: Placement, given: tuple[int, int], size: tuple[int, int]
) -> tuple[Placement, tuple[int, int]]:
    """Let the canvas of a placement end where the image does: what is left is padding of the batch.

    Args:
        where: On a canvas of `size`.
        given: Height and width of the image.
        size: Largest height and width of the canvas.

    Returns:
        Where the image lies on the smaller canvas, and the canvas's height and width.
    """
    sides = [
        min(room, max(1, round(where.scale * side))) for side, room in zip(given, size, strict=True)
    ]
    where = replace(where, top=min(0, where.top), left=min(0, where.left))
    return where, (sides[0], sides[1])


def place(
    plane: NDArray[Pixels], where: Placement, size: tuple[int, int], fill: int | tuple[int, ...]
) -> NDArray[Pixels]:
    """Put an image, or its (H, W) ids, on a canvas of (height, width).

    Images are resampled smoothly, ids (int32) by the nearest pixel.
    """
    given = plane.shape[:2]
    height, width = (max(1, round(where.scale * side)) for side in given)
    smooth = cv2.INTER_AREA if where.scale < 1 else cv2.INTER_LINEAR
    how = cv2.INTER_NEAREST if plane.dtype == np.int32 else smooth
    resized = cv2.resize(plane, (width, height), interpolation=how)
    if where.mirrored:
        resized = resized[:, ::-1]
    canvas = np.full((*size, *plane.shape[2:]), fill, plane.dtype)
    # The part of the canvas that the image covers; the same part in the image's own rows is less
    # its offset, which is negative where the image begins outside.
    top, left = max(0, where.top), max(0, where.left)
    bottom, right = min(size[0], where.top + height), min(size[1], where.left + width)
    shown = resized[top - where.top : bottom - where.top, left - where.left : right - where.left]
    canvas[top:bottom, left:right] = shown
    return canvas


def paste(under: View, over: View, rows: Collection[int]) -> View:
    """Paste some regions of one view on another, with soft rims.

    Args:
        under: What is pasted on.
        over: Where the regions come from, on a canvas of the same size.
        rows: Which of its regions.

    Returns:
        The sum; regions of `over` come after those of `under`.
    """
    mask = np.isin(over.ids, [1 + row for row in rows])  # (H, W)
    share = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), EDGE)[..., None]  # (H, W, 1)
    image = under.image * (1 - share) + over.image * share
    ids = np.where(mask, over.ids + len(under.regions), under.ids)
    return View(image.round().astype(np.uint8), ids.astype(np.int32), under.regions + over.regions)


def split_regions(view: View, things: int) -> tuple[NDArray[np.int32], list[Region]]:
    """Keep what shows, number it from 1 on, and take stuff apart into its connected parts.

    Two ponds are two regions of their own, so that a query answers for what hangs together, and
    each part weighs as much as a thing does (`assignment.equal_weights`).

    Args:
        view: An image.
        things: Class ids from here on are stuff.

    Returns:
        (H, W) int32, 1 + position in the list, 0 for none; and the region of each kept part.
    """
    # A thing stays one region though something in front may cut it in two.
    ids = np.zeros_like(view.ids)
    kept: list[Region] = []
    for row, region in enumerate(view.regions, start=1):
        mask = view.ids == row
        parts, labels = 1, mask.astype(np.int32)
        if region.class_id >= things:
            parts, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
            parts -= 1  # label 0 is the background
        areas = np.bincount(labels.ravel(), minlength=parts + 1)
        for part in range(1, parts + 1):
            if areas[part] >= LEAST_AREA:
                kept.append(region)
                ids[labels == part] = len(kept)
    return ids, kept


def mirror_words(text: str) -> str:
    """Exchange left and right, so that a description of an image is true of its mirror image."""
    return _SIDES.sub(lambda found: _OTHER[found[0].lower()], text)


def compares(texts: Sequence[str]) -> bool:
    """Whether a text compares a region with others, so that no crop may hide those."""
    return any(_COMPARING.search(text) for text in texts)
