"""Several data sets in one run: every step draws one of them, by its ratio."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from torch.utils.data import Dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.training.data.batch import Batch

__all__ = ["MixedBatches"]


class MixedBatches(Dataset["Batch"]):
    """A map-style data set of whole batches, each from one of several data sets.

    Which one is a function of seed and step: all processes of a run, and a resumed run, agree.

    Args:
        parts: Data sets of batches, all of the same length.
        ratios: How often each is drawn, over their sum.
        seed: Of the run.
    """

    def __init__(
        self, parts: Sequence[Dataset[Batch]], ratios: Sequence[float], *, seed: int
    ) -> None:
        self.parts, self.ratios, self.seed = tuple(parts), tuple(ratios), seed

    def which(self, step: int) -> int:
        """Return the index of the data set that a step draws from."""
        rng = random.Random(f"{self.seed}/{step}/data")  # noqa: S311 - a seed, not a secret
        return rng.choices(range(len(self.parts)), self.ratios)[0]

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of one step; its `dataset` is the index of its data set."""
        index = self.which(step)
        return replace(self.parts[index][step], dataset=index)
