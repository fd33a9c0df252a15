"""The keys at the top of nano's recipes."""

from __future__ import annotations

from dataclasses import dataclass

from ape_model.training.losses.criterion import CLASSIFICATIONS
from ape_model.training.ranges import (
    check_above_0,
    check_at_least,
    check_one_of,
    check_share,
)
from ape_model.training.settings import EngineConfig

__all__ = ["LoopConfig"]


@dataclass(frozen=True, slots=True)
class LoopConfig(EngineConfig):
    """Length and optimizer of a run: the keys at the top of a recipe."""

    precision: str = "float32"
    """`float32` alone: the losses of nano are not made for 16 bits."""
    clip: float = 5.0
    """Largest norm of the network's gradient; a larger one is scaled down."""
    prefetch: int = 4
    """Batches that each worker loads ahead."""
    validate_every: int = 100
    """Least steps between two validations; each follows a state."""
    report_every: int = 50
    """Steps between two lines of the log."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW between warm-up and decay."""
    weight_decay: float = 0.05
    """Weight decay of matrices; norms, biases and gates have none."""
    warm_up: int = 250
    """Steps in which the learning rate rises linearly."""
    decay_from: float = 0.45
    """Part of the run, 0..1, after which the learning rate falls to zero (cosine)."""
    heads_first: int = 0
    """First steps in which the criterion's class head learns at its own rate and the network gets
    no gradient from it: for runs that start from trained weights, where that head is new."""
    freeze_norms: bool = False
    """Batch norms keep their statistics, as in inference: for runs that start from trained weights
    with small batches."""
    ema: float = 0.998
    """Decay of the averaged weights per update, 0..1."""
    layer_decay: float = 1.0
    """Learning rate of a backbone block over that of the next one, 0..1; the stem comes first."""
    negative_words: int = 96
    """Number of words of other things among the prompts of a step with names."""
    classification: str = "quality"
    """`quality`: scores predict the IoU of the box. `focal`: scores predict yes or no, as in the
    official criterion (alpha .25, gamma 2)."""
    text: str = ""
    """File of `ape-stream train-text`, relative to the recipe; empty: that of `--init`, or nano."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        EngineConfig.__post_init__(self)  # `super()` knows no class that slots have replaced
        if self.precision != "float32":
            raise ValueError("precision of nano is float32: its losses are not made for 16 bits")
        check_above_0(self, "learning_rate")
        check_share(self, "layer_decay", above_0=True)
        check_share(self, "ema", "decay_from", below_1=True)
        check_at_least(self, 0, "warm_up", "heads_first", "negative_words", "weight_decay")
        check_one_of(self, "classification", CLASSIFICATIONS)
