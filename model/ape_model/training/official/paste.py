"""Copy-paste on free background: things of one image next to those of another, none covered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Pasted", "SampleRegion", "paste_on_free"]

_TRIES = 10
"""Positions tried for each thing."""
_MARGIN = 10
"""Pixels by which the image must be larger than a thing."""
_LEAST = 100
"""Pixels of a thing that must show."""
_SOFT = 128 * 64
"""A thing of more pixels than this gets a soft rim."""
_SIGMA, _RIM = 5.0, 11
"""Standard deviation of the rim, and the width of its kernel, pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class SampleRegion:
    """One region of an image on its way into a batch."""

    class_id: int
    """Position of its class."""
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2, pixels."""
    mask: NDArray[np.bool_] | None
    """(H, W) of the whole image; None where only the box is known."""
    phrase: str = ""
    """Its description; empty where the set has names."""


@dataclass(frozen=True, slots=True, eq=False)
class Pasted:
    """An image with things of another one."""

    image: NDArray[np.uint8]
    """(H, W, 3) blue-green-red."""
    regions: tuple[SampleRegion, ...]
    """Of the image, then the pasted ones."""
    covered: NDArray[np.bool_]
    """(H, W) where something was pasted."""


def paste_on_free(
    image: NDArray[np.uint8],
    regions: Sequence[SampleRegion],
    under: NDArray[np.uint8],
    under_regions: Sequence[SampleRegion],
    rng: random.Random,
) -> Pasted | None:
    """Paste the things of one image on the background of another.

    Small things come first. Each gets ten random positions; what would cover a thing that is there
    is cut off, and at least 100 pixels must be left.

    Args:
        image: (H, W, 3) blue-green-red, where the things come from.
        regions: Its things; those without a mask are not pasted.
        under: (H', W', 3) blue-green-red, what is pasted on.
        under_regions: Its regions; nothing is pasted on their masks.
        rng: Source of chance.

    Returns:
        None where nothing found a position.
    """
    canvas = under.copy()
    taken = np.zeros(under.shape[:2], np.bool_)
    for region in under_regions:
        if region.mask is not None:
            taken |= region.mask
    covered = np.zeros_like(taken)
    added = []
    for region in sorted(regions, key=_area):
        shown = _paste_one(image, region, canvas, taken, rng)
        if shown is None:
            continue
        taken |= shown
        covered |= shown
        x, y, w, h = cv2.boundingRect(shown.view(np.uint8))
        box = (float(x), float(y), float(x + w), float(y + h))
        added.append(replace(region, box=box, mask=shown))
    return Pasted(canvas, (*under_regions, *added), covered) if added else None


def _area(region: SampleRegion) -> int:
    return 0 if region.mask is None else int(np.count_nonzero(region.mask))


def _paste_one(
    image: NDArray[np.uint8],
    region: SampleRegion,
    canvas: NDArray[np.uint8],
    taken: NDArray[np.bool_],
    rng: random.Random,
) -> NDArray[np.bool_] | None:
    """Paste one thing on the canvas, in place; (H', W') where it shows, None for no position."""
    x1, y1, x2, y2 = (max(0, int(value)) for value in region.box)
    width, height = x2 - x1, y2 - y1
    room_y, room_x = canvas.shape[0] - height, canvas.shape[1] - width
    if region.mask is None or min(width, height) < 1 or min(room_y, room_x) <= _MARGIN:
        return None
    patch, pixels = region.mask[y1:y2, x1:x2], image[y1:y2, x1:x2]
    for _ in range(_TRIES):
        left, top = rng.randint(0, room_x), rng.randint(0, room_y)
        window = np.s_[top : top + patch.shape[0], left : left + patch.shape[1]]
        free = patch & ~taken[window]
        area = np.count_nonzero(free)
        if area < _LEAST:
            continue
        share = free.astype(np.float32)
        if area > _SOFT:
            blurred = cv2.GaussianBlur(share, (_RIM, _RIM), _SIGMA, borderType=cv2.BORDER_REFLECT)
            share = np.asarray(blurred, np.float32)
        weight = share[..., None]
        canvas[window] = (pixels * weight + canvas[window] * (1 - weight)).astype(np.uint8)
        shown = np.zeros_like(taken)
        shown[window] = free
        return shown
    return None
