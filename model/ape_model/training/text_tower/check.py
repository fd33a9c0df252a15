"""The gate before vision training: does the text tower tell names apart?

A tower whose names are all alike lets every region fit every name: the network then learns where
things are and never what they are. That is cheap to see before a run and dear after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ape_model.training.errors import TextGateError

__all__ = ["LEAST_RANK", "MOST_COSINE", "Spread", "check_spread", "measure_spread"]

LEAST_RANK = 20.0
"""Effective rank that the main names of the drawn world must have."""
MOST_COSINE = 0.7
"""Median cosine to the nearest other name that they must stay below."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How well a set of names is told apart by its vectors."""

    effective_rank: float
    """Participation ratio of the covariance's eigenvalues."""
    nearest_cosine: float
    """Median over names of the cosine to the nearest other name."""

    def __str__(self) -> str:
        """Tell both figures beside their bars."""
        return (
            f"effective rank {self.effective_rank:.1f} (at least {LEAST_RANK:g}), median cosine to"
            f" the nearest other name {self.nearest_cosine:.3f} (below {MOST_COSINE:g})"
        )


def measure_spread(vectors: Tensor) -> Spread:
    """Measure (N, D) vectors of length one."""
    centred = vectors - vectors.mean(0)
    values = torch.linalg.svdvals(centred.double()) ** 2
    cosine = vectors @ vectors.T - 2 * torch.eye(len(vectors))
    rank = float(values.sum() ** 2 / (values**2).sum())
    return Spread(rank, float(cosine.max(1).values.median()))


def check_spread(spread: Spread) -> None:
    """Refuse names that are not told apart.

    Raises:
        TextGateError: a figure does not reach its bar.
    """
    # Written so that no number (a tower that diverged) does not pass either.
    if not (spread.effective_rank >= LEAST_RANK and spread.nearest_cosine < MOST_COSINE):
        raise TextGateError(f"the text tower does not tell names apart: {spread}")
