"""The check before vision training: does the text tower distinguish names?

With a tower whose names are all alike every region fits every name, and the network learns where
things are but never what they are. To see that takes a second before a run, and hours after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ape_model.training.errors import TextTowerError

__all__ = [
    "MAX_NEAREST_COSINE",
    "MIN_EFFECTIVE_RANK",
    "EmbeddingDiversity",
    "check_diversity",
    "measure_diversity",
]

MIN_EFFECTIVE_RANK = 20.0
"""Smallest effective rank of the main names of the drawn world."""
MAX_NEAREST_COSINE = 0.7
"""Upper limit of the median cosine to the nearest other name."""


@dataclass(frozen=True, slots=True)
class EmbeddingDiversity:
    """How different the vectors of a set of names are."""

    effective_rank: float
    """Participation ratio of the eigenvalues of their covariance, (sum)^2 / sum of squares."""
    nearest_cosine: float
    """Median over names of the cosine to the nearest other name."""

    def __str__(self) -> str:
        """Return both numbers with their limits."""
        return (
            f"effective rank {self.effective_rank:.1f} (at least {MIN_EFFECTIVE_RANK:g}),"
            f" median cosine to the nearest other name {self.nearest_cosine:.3f}"
            f" (below {MAX_NEAREST_COSINE:g})"
        )


def measure_diversity(vectors: Tensor) -> EmbeddingDiversity:
    """Measure (N, D) vectors of length one."""
    centred = vectors - vectors.mean(0)
    values = torch.linalg.svdvals(centred.double()) ** 2  # eigenvalues of the covariance, times N
    # Minus 2 on the diagonal: no vector is its own nearest.
    cosine = vectors @ vectors.T - 2 * torch.eye(len(vectors))  # (N, N)
    rank = float(values.sum() ** 2 / (values**2).sum())
    return EmbeddingDiversity(rank, float(cosine.max(1).values.median()))


def check_diversity(diversity: EmbeddingDiversity) -> None:
    """Refuse names that are too alike.

    Raises:
        TextTowerError: a number is beyond its limit, or NaN.
    """
    # Written so that NaN, of a tower that diverged, fails.
    if not (
        diversity.effective_rank >= MIN_EFFECTIVE_RANK
        and diversity.nearest_cosine < MAX_NEAREST_COSINE
    ):
        raise TextTowerError(f"the text tower does not distinguish names: {diversity}")
