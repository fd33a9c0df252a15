"""Which images a batch has: repeat factors, data sets by ratio, batches of one aspect.

Everything is a function of the seed and the step: a run that was cut off goes on with the same
batches, and processes agree without a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["EpochBatches", "RowSchedule", "repeat_factors", "row_odds"]


def repeat_factors(shown: NDArray[np.int32], images: int, threshold: float) -> NDArray[np.float64]:
    """How often an epoch has each image (Gupta et al. 2019, LVIS, section 4).

    A class in a share f of all images has the factor max(1, sqrt(threshold / f)), an image the
    largest factor of its classes.

    Args:
        shown: (M, 2) pairs of image and class, each once.
        images: N, number of images.
        threshold: Share of images, 0..1; 0 repeats none.

    Returns:
        (N,) at least 1.
    """
    factors = np.ones(images)
    if not threshold or not len(shown):
        return factors
    image, class_id = shown.T
    share = np.bincount(class_id) / images
    of_class = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1 / images)))
    np.maximum.at(factors, image, of_class[class_id])
    return factors


def row_odds(
    mixture: Literal["mixed", "separate"],
    ratios: Sequence[float],
    factors: Sequence[NDArray[np.float64]],
) -> NDArray[np.float64]:
    """(R,) probability that a batch is of each of R data sets.

    Args:
        mixture: `separate`: by ratio alone, as with a loader for each set. `mixed`: as with one
            loader, in which each image counts ratio * size of the largest set / size of its set *
            its repeat factor.
        ratios: Of the data sets.
        factors: Repeat factors of the images of each.
    """
    odds = np.array(ratios, np.float64)
    if mixture == "mixed":
        # The size cancels out: size images, each over size, leave the mean repeat factor.
        odds = odds * [own.mean() for own in factors]
    return odds / odds.sum()


class RowSchedule:
    """The data set of every step, and how many batches of it came before.

    Args:
        odds: (R,) probabilities.
        steps: Of the run.
        seed: Of the run.
    """

    def __init__(self, odds: NDArray[np.float64], steps: int, seed: int) -> None:
        rng = np.random.default_rng((seed, 0))
        self.row = rng.choice(len(odds), steps, p=odds).astype(np.uint8)
        self.turn = np.zeros(steps, np.int32)
        for row in range(len(odds)):
            mine = self.row == row
            self.turn[mine] = np.arange(mine.sum())


class EpochBatches:
    """Batches of the images of one data set, epoch after epoch.

    An epoch has each image as often as its repeat factor says, rounded up or down at random, in a
    random order; a batch has images wider than high, or others. What is left of an epoch when no
    batch can be filled is left out, unless the epoch has none of that aspect.

    Args:
        factors: (N,) repeat factors.
        wide: (N,) bool, whether an image is wider than high.
        batch: Images of a batch.
        seed: Of the run and the data set.
    """

    def __init__(
        self,
        factors: NDArray[np.float64],
        wide: NDArray[np.bool_],
        batch: int,
        seed: Sequence[int],
    ) -> None:
        self.factors, self.wide, self.batch, self.seed = factors, wide, batch, tuple(seed)
        self._ends = [0]
        self._epoch, self._batches = -1, np.zeros((0, batch), np.int64)

    def __getitem__(self, turn: int) -> NDArray[np.int64]:
        """(batch,) images of a batch; the same at every call."""
        # Epochs differ a little in length: that of an epoch is known when it has been made.
        while turn >= self._ends[-1]:
            self._make(len(self._ends) - 1)
            self._ends.append(self._ends[-1] + len(self._batches))
        epoch = int(np.searchsorted(self._ends, turn, side="right")) - 1
        if epoch != self._epoch:
            self._make(epoch)
        return self._batches[turn - self._ends[epoch]]

    def _make(self, epoch: int) -> None:
        rng = np.random.default_rng((*self.seed, epoch))
        whole = np.floor(self.factors)
        more = rng.random(len(self.factors)) < self.factors - whole
        order = np.repeat(np.arange(len(self.factors)), (whole + more).astype(np.int64))
        rng.shuffle(order)
        groups = [order[self.wide[order]], order[~self.wide[order]]]
        batches = np.concatenate([self._cut(group) for group in groups])
        rng.shuffle(batches)
        self._epoch, self._batches = epoch, batches

    def _cut(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        if 0 < len(order) < self.batch:
            order = np.resize(order, self.batch)  # repeated until the batch is full
        return order[: len(order) // self.batch * self.batch].reshape(-1, self.batch)
