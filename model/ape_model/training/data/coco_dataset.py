"""Batches of a user's pictures: batch k is a function of the seed and k alone."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from pycocotools import mask as rle
from torch.utils.data import Dataset

from ape_model.training.data.augment import (
    Placement,
    View,
    compares,
    fitted,
    jittered,
    mirror_words,
    paste,
    place,
    split_regions,
)
from ape_model.training.data.batch import Batch, Example, collate
from ape_model.training.data.config import DataConfig
from ape_model.training.data.photometric import photometric
from ape_model.training.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_model.nano_config import NanoConfig
    from ape_model.training.data.coco import CocoData, Picture, Shape
    from ape_model.training.data.world_dataset import Stage

__all__ = ["CocoBatches"]

GREY = (104, 116, 124)
"""Blue, green, red around a picture: what the released models pad with once colours are normal."""
TRIES = 8
"""Pictures tried for a place of a batch until one shows what its descriptions mean."""


class CocoBatches(Dataset["Batch"]):
    """A map-style data set of whole batches of a user's pictures.

    Each picture is resized at random (large-scale jitter) and mirrored half of the time; where
    names are asked for, some get things of another picture pasted on (copy-paste). Where
    descriptions are asked for, nothing is pasted, mirrored words follow the picture, and a
    picture whose descriptions compare is never cut.

    Args:
        data: the pictures.
        stages: parts of the run.
        config: how they are changed and asked for.
        seed: of the run.
        network: sizes of the network.
        steps: length of the run.
        rank: of this process among several.
    """

    def __init__(
        self,
        data: CocoData,
        stages: tuple[Stage, ...],
        config: DataConfig | None = None,
        *,
        seed: int,
        network: NanoConfig,
        steps: int,
        rank: int = 0,
    ) -> None:
        self.data, self.stages, self.seed = data, stages, seed
        self.config = DataConfig() if config is None else config
        self.network, self.steps, self.rank = network, steps, rank
        self.usable = [
            picture
            for picture in data.pictures
            if not self.config.spoken or any(region.phrases for region in picture.regions)
        ]
        if not self.usable:
            raise DataError(
                f"{self.config.source}: no annotation has `phrases`; use prompts = 'vocabulary'"
            )

    def __len__(self) -> int:
        """Steps of the run."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of one step.

        Raises:
            DataError: a picture cannot be read.
        """
        rng = random.Random(f"{self.seed}/{step}")  # noqa: S311 - a seed, not a secret
        canvas = [s for s in self.stages if s.first <= step][-1].choose(rng)
        rng = random.Random(f"{self.seed}/{step}/{self.rank}")  # noqa: S311
        examples = [self._draw(canvas.draw(rng), rng) for _ in range(canvas.batch)]
        # Where no picture shows what it is described by, their categories are asked for.
        return collate([e for e in examples if e.sentences] or examples, self.network)

    def example(self, index: int, size: tuple[int, int]) -> Example:
        """Return a picture, unchanged but for its size, on a canvas of (height, width)."""
        picture = self.usable[index]
        return self._finish(_view(picture, fitted(picture.size, size), size), mirrored=False)

    def _draw(self, size: tuple[int, int], rng: random.Random) -> Example:
        """Draw a picture; of those that are described, one that shows what is spoken of."""
        for _ in range(TRIES):
            example = self.jittered(rng.choice(self.usable), size, rng)
            if example.sentences or not self.config.spoken:
                break
        return example

    def jittered(self, picture: Picture, size: tuple[int, int], rng: random.Random) -> Example:
        """Return a picture, changed by chance, on a canvas of (height, width)."""
        where = jittered(picture.size, size, self._scale(picture), rng)
        view = _view(picture, where, size)
        if not self.config.spoken and rng.random() < self.config.copy_paste:
            view = self._with_others(view, size, rng)
        if rng.random() < self.config.photometric:
            view = replace(view, image=photometric(view.image, rng))
        return self._finish(view, mirrored=where.mirrored)

    def _scale(self, picture: Picture) -> tuple[float, float]:
        """Least and largest size; a picture is not cut where words need to see all of it."""
        low, high = self.config.scale
        said = [text for region in picture.regions for text in region.phrases]
        if self.config.prompts == "expression" or (self.config.spoken and compares(said)):
            high = min(high, 1.0)
        return min(low, high), high

    def _with_others(self, view: View, size: tuple[int, int], rng: random.Random) -> View:
        """Paste a random half of another picture's things; stuff is a place and stays in its."""
        other = rng.choice(self.usable)
        things = [k for k, r in enumerate(other.regions) if r.class_id < self.data.things]
        chosen = [k for k in things if rng.random() < 0.5]
        where = jittered(other.size, size, self.config.scale, rng)
        return paste(view, _view(other, where, size), chosen) if chosen else view

    def _finish(self, view: View, *, mirrored: bool) -> Example:
        parts_from = self.data.things if self.config.stuff_in_parts else len(self.data.names)
        ids, regions = split_regions(view, parts_from)
        boxes = [cv2.boundingRect((ids == 1 + k).view(np.uint8)) for k in range(len(regions))]
        say = mirror_words if mirrored else str
        spoken = [(say(p), k) for k, region in enumerate(regions) for p in region.phrases]
        return Example(
            image=view.image,
            ids=ids,
            boxes=np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], np.float32).reshape(
                -1, 4
            ),
            classes=np.array([region.class_id for region in regions], np.int64),
            masked=np.array([region.masked for region in regions], np.bool_),
            sentences=tuple(spoken) if self.config.spoken else (),
        )


def _view(picture: Picture, where: Placement, size: tuple[int, int]) -> View:
    """Read a picture and put it on a canvas."""
    ids = np.zeros(picture.size, np.int32)
    masks = [_mask(region.shape, picture.size) for region in picture.regions]
    # Large regions first, so that what stands on them stays visible.
    for row in sorted(range(len(masks)), key=lambda k: -int(masks[k].sum())):
        ids[masks[row] > 0] = row + 1
    image = place(_read(picture), where, size, GREY)
    return View(image, place(ids, where, size, 0), picture.regions)


def _read(picture: Picture) -> NDArray[np.uint8]:
    """Read (H, W, 3) blue-green-red, turned as EXIF says only where the data set means that."""
    for how in (cv2.IMREAD_COLOR, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION):
        pixels = cv2.imread(str(picture.path), how)
        if pixels is None:
            raise DataError(f"{picture.path} is no picture that can be read")
        if pixels.shape[:2] == picture.size:
            return np.asarray(pixels, np.uint8)
    raise DataError(f"{picture.path} has another size than the data says")


def _mask(shape: Shape, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W) uint8 0 or 1."""
    height, width = size
    if isinstance(shape, list):
        code = rle.merge(rle.frPyObjects(shape, height, width))
    elif isinstance(shape["counts"], list):
        code = rle.frPyObjects(shape, height, width)
    else:
        code = shape
    with warnings.catch_warnings():
        # pycocotools' array wrapper is older than NumPy 2 and says so at every call.
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(rle.decode(code), np.uint8)
