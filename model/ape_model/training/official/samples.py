"""One image as a recipe learns it: copy-paste, mirror, large-scale jitter, stuff in parts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from ape_model.network.boxes import box_iou
from ape_model.training.data.augment import Placement, jittered, mirror_words, no_margin, place
from ape_model.training.data.coco_dataset import GREY, read_pixels
from ape_model.training.errors import DataError
from ape_model.training.official.paste import SampleRegion, paste_on_free
from ape_stream.datasets.shapes import decode_shape

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_model.training.official.recipe import Augmentation
    from ape_model.training.official.records import Record, RowData

__all__ = ["Sample", "clean", "counts", "draw_phrases", "make_sample", "stuff_parts"]

UNKNOWN = 255
"""Pixels of a stuff map that are not labelled."""
_LEAST_STUFF = 64
"""A part of a stuff with at most so many pixels is not learnt."""
_LEAST_SIDE = 1e-5
"""Pixels; boxes of less lie outside of the image."""
_ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
)  # fmt: skip
_SIGNS = re.compile(r"[.,'!?\"()*#:;]")
_SPACES = re.compile(r"[-/\s]+")


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An augmented image."""

    image: NDArray[np.uint8]
    """(H, W, 3) blue-green-red."""
    regions: tuple[SampleRegion, ...]
    """What shows; boxes are around what shows of the mask."""


def make_sample(
    data: RowData,
    record: Record,
    background: Record | None,
    augmentation: Augmentation,
    rng: random.Random,
) -> Sample:
    """Read and augment an image.

    Args:
        data: The set that it is of.
        record: The image.
        background: An image of the same set that its things are pasted on; None: nothing is pasted.
        augmentation: Sizes and ranges.
        rng: Source of chance.

    Raises:
        DataError: a file cannot be read.
    """
    image, regions = _read(record)
    stuff = _read_stuff(record)
    if background is not None:
        under, under_regions = _read(background)
        pasted = paste_on_free(image, regions, under, under_regions, rng)
        if pasted is not None:
            image, regions, stuff = pasted.image, list(pasted.regions), _read_stuff(background)
            if stuff is not None:
                stuff[pasted.covered] = 0
    where, size = _arrange(image.shape[:2], regions, augmentation, rng)
    moved = [_moved(region, where, image.shape[:2], size) for region in regions]
    kept = [region for region in moved if region is not None]
    if data.row.prompts == "phrase":
        kept = draw_phrases(kept, augmentation.most_phrases, augmentation.phrase_iou, rng)
    if stuff is not None:
        plane = place(stuff, where, size, UNKNOWN)
        kept += stuff_parts(plane, data.things)
    return Sample(place(image, where, size, GREY), tuple(kept))


def _read(record: Record) -> tuple[NDArray[np.uint8], list[SampleRegion]]:
    regions = []
    for one in record.annotations:
        x, y, w, h = one.box
        try:
            mask = None if one.shape is None else decode_shape(one.shape, record.size).astype(bool)
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(f"{record.path} has a mask that cannot be read: {error!r}") from error
        regions.append(SampleRegion(one.class_id, (x, y, x + w, y + h), mask, clean(one.phrase)))
    return read_pixels(record.path, record.size), regions


def _read_stuff(record: Record) -> NDArray[np.int32] | None:
    """(H, W) stuff of an image: 0 thing, 1.. stuff, `UNKNOWN`."""
    if record.stuff_map is None:
        return None
    plane = cv2.imread(str(record.stuff_map), cv2.IMREAD_GRAYSCALE)
    if plane is None or plane.shape != record.size:
        raise DataError(f"{record.stuff_map} cannot be read, or has another size than its image")
    return plane.astype(np.int32)


def _arrange(
    given: tuple[int, int],
    regions: Sequence[SampleRegion],
    augmentation: Augmentation,
    rng: random.Random,
) -> tuple[Placement, tuple[int, int]]:
    """Where the image lies on its canvas, and the canvas's height and width."""
    whole = counts([region.phrase for region in regions]) or rng.random() < 0.5
    scale = augmentation.scale if whole else augmentation.scale_with_crop
    square = (augmentation.canvas, augmentation.canvas)
    where, size = no_margin(jittered(given, square, scale, rng), given, square)
    return replace(where, mirrored=rng.random() < augmentation.flip), size


def _moved(
    region: SampleRegion, where: Placement, given: tuple[int, int], size: tuple[int, int]
) -> SampleRegion | None:
    """The region on the canvas; None where it does not show."""
    phrase = mirror_words(region.phrase) if where.mirrored else region.phrase
    if region.mask is not None:
        mask = place(region.mask.astype(np.int32), where, size, 0) > 0
        x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
        if not w:
            return None
        return SampleRegion(region.class_id, (x, y, x + w, y + h), mask, phrase)
    box = _moved_box(region.box, where, given, size)
    if min(box[2] - box[0], box[3] - box[1]) <= _LEAST_SIDE:
        return None
    return SampleRegion(region.class_id, box, None, phrase)


def _moved_box(
    box: tuple[float, float, float, float],
    where: Placement,
    given: tuple[int, int],
    size: tuple[int, int],
) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 on the canvas, cut off at its sides."""
    # `place` rounds each side to pixels by itself.
    height, width = (max(1, round(where.scale * side)) for side in given)
    left, right = (value * width / given[1] for value in box[::2])
    if where.mirrored:
        left, right = width - right, width - left
    top, bottom = (value * height / given[0] for value in box[1::2])
    xs = [min(max(value + where.left, 0.0), float(size[1])) for value in (left, right)]
    ys = [min(max(value + where.top, 0.0), float(size[0])) for value in (top, bottom)]
    return xs[0], ys[0], xs[1], ys[1]


def stuff_parts(plane: NDArray[np.int32], things: int) -> list[SampleRegion]:
    """Take stuff apart: a region for every outline, with what is inside it (APE, section 3.4).

    Args:
        plane: (H, W): 0 thing, 1.. stuff, `UNKNOWN`.
        things: Number of classes before the stuff.
    """
    found = []
    for value in np.unique(plane):
        if value in (0, UNKNOWN):
            continue
        mask = (plane == value).view(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for outline in outlines:
            part = cv2.drawContours(np.zeros_like(mask), [outline], 0, 1, cv2.FILLED)
            if np.count_nonzero(part) > _LEAST_STUFF:
                x, y, w, h = cv2.boundingRect(outline)
                box = (float(x), float(y), float(x + w), float(y + h))
                found.append(SampleRegion(things + int(value) - 1, box, part.astype(np.bool_)))
    return found


def draw_phrases(
    regions: Sequence[SampleRegion], most: int, iou: float, rng: random.Random
) -> list[SampleRegion]:
    """Draw described regions of an image, in a random order.

    Args:
        regions: All of them.
        most: How many at most.
        iou: Of two that overlap more, one is drawn.
        rng: Source of chance.
    """
    order = rng.sample(range(len(regions)), len(regions))
    overlap = box_iou(*[torch.tensor([region.box for region in regions]).view(-1, 4)] * 2)
    kept: list[int] = []
    for k in order:
        if len(kept) < most and not bool((overlap[k, kept] > iou).any()):
            kept.append(k)
    return [regions[k] for k in kept]


def counts(phrases: Sequence[str]) -> bool:
    """Whether a phrase has an ordinal word, as "the second from the left"."""
    return any(word in phrase.lower() for phrase in phrases for word in _ORDINALS)


def clean(phrase: str) -> str:
    """A phrase in lower case, without signs."""
    return _SPACES.sub(" ", _SIGNS.sub("", phrase.lower())).strip()
