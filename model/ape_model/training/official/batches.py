"""Batches of the data sets of a recipe: batch k is a function of the seed and k alone."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from ape_model.training.data.batch import MASK_STRIDE, Batch, pad_rows, stack_images
from ape_model.training.errors import DataError, RecipeError
from ape_model.training.official.samples import make_sample
from ape_model.training.official.sampling import (
    EpochBatches,
    RowSchedule,
    repeat_factors,
    row_odds,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ape_model.config import ApeConfig
    from ape_model.training.official.recipe import OfficialRecipe
    from ape_model.training.official.records import RowData
    from ape_model.training.official.samples import Sample

__all__ = ["OfficialBatches", "collate_samples"]

_TRIES = 20
"""Images tried for one that shows a region."""


class OfficialBatches(Dataset["Batch"]):
    """A map-style data set of whole batches, each of one data set of a recipe.

    Args:
        recipe: Ratios, augmentation, size of batches.
        rows: Its data sets.
        network: Sizes of the network.
        rank: Of this process among several; all draw the same data set, each its own images.
        processes: How many there are.
    """

    def __init__(
        self,
        recipe: OfficialRecipe,
        rows: Sequence[RowData],
        network: ApeConfig,
        *,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if recipe.batch % processes:
            raise RecipeError(f"a batch of {recipe.batch} images for {processes} processes")
        self.recipe, self.rows, self.network = recipe, tuple(rows), network
        self.rank, self.images = rank, recipe.batch // processes
        factors = [repeat_factors(row.shown, len(row), row.row.repeat) for row in self.rows]
        self.odds = row_odds(recipe.mixture, [row.ratio for row in recipe.data], factors)
        self.schedule = RowSchedule(self.odds, recipe.schedule.steps, recipe.seed)
        self.epochs = [
            EpochBatches(own, row.sizes[:, 1] > row.sizes[:, 0], recipe.batch, (recipe.seed, 1, k))
            for k, (own, row) in enumerate(zip(factors, self.rows, strict=True))
        ]
        self._until = [np.cumsum(own) for own in factors]

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of one step; its `dataset` is the position of its data set.

        Raises:
            DataError: a file cannot be read, or no region shows in any of several images.
        """
        return self.batch(int(self.schedule.row[step]), int(self.schedule.turn[step]))

    def batch(self, row: int, turn: int) -> Batch:
        """Make this process's part of a batch of one data set.

        Args:
            row: Of the recipe.
            turn: Batches of this row before.
        """
        first = self.rank * self.images
        indices = self.epochs[row][turn][first : first + self.images]
        samples = [
            self._sample(row, int(index), random.Random(f"{self.recipe.seed}/{row}/{turn}/{k}"))  # noqa: S311
            for k, index in enumerate(indices, start=first)
        ]
        return replace(collate_samples(samples, self.network), dataset=row)

    def _sample(self, row: int, index: int, rng: random.Random) -> Sample:
        """Augment an image; another one where nothing of it shows."""
        data = self.rows[row]
        for _ in range(_TRIES):
            background = None
            if data.row.copy_paste and rng.random() < data.row.copy_paste:
                background = data[self._draw(row, rng)]
            sample = make_sample(data, data[index], background, self.recipe.augmentation, rng)
            if sample.regions:
                return sample
            index = self._draw(row, rng)
        raise DataError(f"{data.row.name}: no region shows in any of {_TRIES} images")

    def _draw(self, row: int, rng: random.Random) -> int:
        """An image by its repeat factor."""
        until = self._until[row]
        return int(np.searchsorted(until, rng.random() * until[-1], side="right"))


def collate_samples(samples: Sequence[Sample], config: ApeConfig) -> Batch:
    """Stack images of any sizes, padded to one canvas; regions may overlap.

    Args:
        samples: B images, each with at least one region.
        config: Of the network that will see them.
    """
    images = stack_images([sample.image for sample in samples], config)
    longest = max(len(sample.regions) for sample in samples)  # G
    sides = [(s.image.shape[1], s.image.shape[0]) * 2 for s in samples]
    boxes = pad_rows([_boxes(sample) for sample in samples], longest)  # (B, G, 4) x1, y1, x2, y2
    low, high = (boxes / torch.tensor(sides, dtype=torch.float32)[:, None]).chunk(2, dim=-1)
    classes = [np.array([one.class_id for one in s.regions], np.int64) for s in samples]
    known = [np.array([one.mask is not None for one in s.regions]) for s in samples]
    number = torch.tensor([len(sample.regions) for sample in samples])
    return Batch(
        images=images,
        sizes=tuple((s.image.shape[0], s.image.shape[1]) for s in samples),
        unit=0,
        boxes=torch.cat([(low + high) / 2, high - low], dim=-1),
        classes=pad_rows(classes, longest),
        valid=torch.arange(longest) < number[:, None],
        masks=_masks(samples, longest, (images.shape[2], images.shape[3])),
        masked=pad_rows(known, longest),
        sentences=tuple(
            tuple((one.phrase, k) for k, one in enumerate(s.regions) if one.phrase) for s in samples
        ),
    )


def _boxes(sample: Sample) -> NDArray[np.float32]:
    return np.array([one.box for one in sample.regions], np.float32)


def _masks(samples: Sequence[Sample], regions: int, canvas: tuple[int, int]) -> Tensor:
    """(B, G, H / 4, W / 4) share of each cell that is the region's; 0 for what has no mask."""
    grid = (canvas[0] // MASK_STRIDE, canvas[1] // MASK_STRIDE)
    masks = torch.zeros(len(samples), regions, *grid)
    for own, sample in zip(masks, samples, strict=True):
        for plane, region in zip(own, sample.regions, strict=False):
            if region.mask is not None:
                # One mask at a time: a hundred of 1024 x 1024 would be 400 MB.
                mask = torch.from_numpy(region.mask).float()[None]
                height, width = mask.shape[1:]
                mask = functional.pad(mask, (0, -width % MASK_STRIDE, 0, -height % MASK_STRIDE))
                small = functional.avg_pool2d(mask, MASK_STRIDE)[0]
                plane[: small.shape[0], : small.shape[1]] = small
    return masks
