"""Batches of a user's images: batch k is a function of the seed and k alone."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from torch.utils.data import Dataset

from ape_cuda_ops.resize import resize_bytes
from ape_model.inference.preprocess import fitted_size
from ape_model.training.data.augment import (
    Placement,
    View,
    compares,
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
from ape_stream.datasets.shapes import decode_shape

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_model.config import ApeConfig, NanoConfig
    from ape_model.training.data.world_dataset import Phase
    from ape_stream.datasets.instances import InstanceData, InstanceImage

__all__ = ["GREY", "CocoBatches", "read_pixels", "read_view"]

GREY = (104, 116, 124)
"""Blue, green, red of the padding: the mean of `ApeConfig.pixel_mean`, which becomes zero."""
TRIES = 8
"""Images tried for one example of a batch until a described region is visible."""


class CocoBatches(Dataset["Batch"]):
    """A map-style data set of whole batches of a user's images.

    Each image is resized at random (large-scale jitter) and mirrored with a probability of one
    half. With names as prompts, things of another image are pasted on some images (copy-paste).
    With phrases as prompts nothing is pasted, "left" and "right" are exchanged in a mirrored image,
    and an image whose phrases compare regions is never cropped.

    Args:
        data: The images.
        phases: Of the run: sizes of canvases and batches.
        config: Augmentation, and kind of prompts.
        seed: Of the run.
        network: Sizes of the network that is trained.
        steps: Length of the run.
        rank: Of this process in a distributed run.
    """

    def __init__(
        self,
        data: InstanceData,
        phases: tuple[Phase, ...],
        config: DataConfig | None = None,
        *,
        seed: int,
        network: NanoConfig | ApeConfig,
        steps: int,
        rank: int = 0,
    ) -> None:
        self.data, self.phases, self.seed = data, phases, seed
        self.config = DataConfig() if config is None else config
        self.network, self.steps, self.rank = network, steps, rank
        self.usable = [
            entry
            for entry in data.labelled
            if not self.config.uses_phrases or any(region.phrases for region in entry.regions)
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
            DataError: an image cannot be read.
        """
        rng = random.Random(f"{self.seed}/{step}")  # noqa: S311 - a seed, not a secret
        # All processes draw the same canvas, so that their steps cost the same, then own images.
        canvas = [s for s in self.phases if s.first <= step][-1].choose(rng)
        rng = random.Random(f"{self.seed}/{step}/{self.rank}")  # noqa: S311
        examples = [self._draw(canvas.draw(rng), rng) for _ in range(canvas.batch)]
        # A batch without any visible described region falls back to names as prompts.
        return collate([e for e in examples if e.sentences] or examples, self.network)

    def plain(self, index: int, side: int) -> Example:
        """Return an image as inference sees it, its long side `side` pixels."""
        entry = self.usable[index]
        size = fitted_size(entry.size, side)
        # Sides are rounded each by itself: one scale for both may miss the last row.
        whole = read_view(entry, Placement(1.0, 0, 0), entry.size)
        ids = place(
            whole.ids,
            Placement(max(size[0] / entry.size[0], size[1] / entry.size[1]), 0, 0),
            size,
            0,
        )
        pixels = resize_bytes(whole.image, size)
        return self._finish(View(pixels, ids, whole.regions), mirrored=False)

    def _draw(self, size: tuple[int, int], rng: random.Random) -> Example:
        """Draw a random image; with phrases, one on which a described region is visible."""
        for _ in range(TRIES):
            example = self.jittered(rng.choice(self.usable), size, rng)
            if example.sentences or not self.config.uses_phrases:
                break
        return example

    def jittered(self, entry: InstanceImage, size: tuple[int, int], rng: random.Random) -> Example:
        """Return a randomly augmented image on a canvas of (height, width)."""
        where, size = self._arrange(entry, size, rng)
        view = read_view(entry, where, size)
        if not self.config.uses_phrases and rng.random() < self.config.copy_paste:
            view = self._with_others(view, size, rng)
        if rng.random() < self.config.photometric:
            view = replace(view, image=photometric(view.image, rng))
        return self._finish(view, mirrored=where.mirrored)

    def _arrange(
        self, entry: InstanceImage, size: tuple[int, int], rng: random.Random
    ) -> tuple[Placement, tuple[int, int]]:
        """Where an image lies on a canvas of (height, width), and how large the canvas is."""
        return jittered(entry.size, size, self._scale(entry), rng), size

    def _scale(self, entry: InstanceImage) -> tuple[float, float]:
        """Range of sizes; an image is not cropped where its phrases refer to all of it."""
        low, high = self.config.scale
        phrases = [text for region in entry.regions for text in region.phrases]
        if self.config.prompts == "expression" or (self.config.uses_phrases and compares(phrases)):
            high = min(high, 1.0)
        return min(low, high), high

    def _with_others(self, view: View, size: tuple[int, int], rng: random.Random) -> View:
        """Paste a random half of the things of another image; stuff is not pasted."""
        other = rng.choice(self.usable)
        things = [k for k, r in enumerate(other.regions) if r.class_id < self.data.things]
        chosen = [k for k in things if rng.random() < 0.5]
        where = jittered(other.size, size, self.config.scale, rng)
        return paste(view, read_view(other, where, size), chosen) if chosen else view

    def _finish(self, view: View, *, mirrored: bool) -> Example:
        # Class ids from `parts_from` on are split; one above all of them splits none.
        parts_from = self.data.things if self.config.stuff_in_parts else len(self.data.names)
        ids, regions = split_regions(view, parts_from)
        # Boxes of what still shows after crop and paste; those of the file no longer fit.
        boxes = [cv2.boundingRect((ids == 1 + k).view(np.uint8)) for k in range(len(regions))]
        follow = mirror_words if mirrored else str
        sentences = [(follow(p), k) for k, region in enumerate(regions) for p in region.phrases]
        return Example(
            image=view.image,
            ids=ids,
            boxes=np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], np.float32).reshape(
                -1, 4
            ),
            classes=np.array([region.class_id for region in regions], np.int64),
            masked=np.array([region.masked for region in regions], np.bool_),
            sentences=tuple(sentences) if self.config.uses_phrases else (),
        )


def read_view(entry: InstanceImage, where: Placement, size: tuple[int, int]) -> View:
    """Read an image and put it on a canvas of (height, width).

    Raises:
        DataError: it cannot be read.
    """
    # Masks of COCO files may overlap, and `ids` has one region for each pixel.
    ids = np.zeros(entry.size, np.int32)
    masks = [decode_shape(region.shape, entry.size) for region in entry.regions]
    # Large regions first: a small one, most likely in front of them, then keeps its pixels.
    for row in sorted(range(len(masks)), key=lambda k: -int(masks[k].sum())):
        ids[masks[row] > 0] = row + 1
    image = place(read_pixels(entry.path, entry.size), where, size, GREY)
    return View(image, place(ids, where, size, 0), entry.regions)


def read_pixels(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read (H, W, 3) uint8 blue-green-red.

    COCO files give the size either as stored or as rotated by EXIF; the one that fits is taken.

    Args:
        path: The image.
        size: Height and width that the data set gives.

    Raises:
        DataError: it cannot be read, or has another size.
    """
    for how in (cv2.IMREAD_COLOR, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION):
        pixels = cv2.imread(str(path), how)
        if pixels is None:
            raise DataError(f"{path} cannot be read as an image")
        if pixels.shape[:2] == size:
            return np.asarray(pixels, np.uint8)
    raise DataError(f"{path} has another size than the data set gives")
