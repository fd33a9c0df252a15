"""Settings that every training run has, of nano, of a released model and of fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from ape_model.training.ranges import check_above_0, check_at_least, check_one_of

__all__ = ["PRECISIONS", "EngineConfig", "step_seed"]

PRECISIONS: Final = {
    "float32": None,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""What a network computes in while its weights stay float32 (automatic mixed precision)."""
_STREAM: Final = 1_000_003
"""A prime over any number of steps."""


def step_seed(seed: int, step: int) -> int:
    """Seed of all that a step of a run draws; runs of neighbouring seeds share none."""
    return seed * _STREAM + step


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Length of a run, how its batches are loaded and computed, and when it saves and reports."""

    steps: int
    """Number of batches."""
    accumulate: int = 1
    """Batches whose gradients make one update."""
    clip: float = 0.1
    """Largest norm of the network's gradient; a larger one is scaled down."""
    precision: str = "float32"
    """`float32`, or `float16` or `bfloat16` on hardware that is faster in it."""
    compress: bool = False
    """Whether processes send each other gradients as float16."""
    seed: int = 0
    """Of everything that is drawn."""
    workers: int = 1
    """Processes that load batches; 0: the training process itself."""
    prefetch: int = 2
    """Batches that each of them loads ahead."""
    save_every_s: float = 120.0
    """Seconds between two states."""
    save_every: int = 0
    """Batches between two states; 0: `save_every_s` decides."""
    keep: int = 1
    """States that are kept: state.pt, and older ones as state.1.pt ..."""
    validate_every: int = 1
    """Least batches between two validations; each follows a state."""
    report_every: int = 20
    """Batches between two lines of the log."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        counts = ("steps", "accumulate", "prefetch", "keep", "validate_every", "report_every")
        check_at_least(self, 1, *counts)
        check_above_0(self, "clip")
        check_at_least(self, 0, "seed", "workers", "save_every")
        check_one_of(self, "precision", PRECISIONS)
