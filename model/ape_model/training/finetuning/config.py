"""The settings of a fine-tuning run: what `--config` holds with `--mode`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ape_model.training.errors import RecipeError
from ape_model.training.ranges import (
    check_above_0,
    check_at_least,
    check_one_of,
    check_rising,
    check_share,
)
from ape_model.training.settings import PRECISIONS
from ape_stream.tables import read_table

if TYPE_CHECKING:
    from pathlib import Path

    from ape_model.training.finetuning.mode import Mode

__all__ = ["FineTuneConfig", "read_config"]

_RATES: Final = {"prompt": 0.02, "head": 1e-4, "lora": 2e-4, "full": 1e-5}
"""Learning rate of each mode where none is given."""
_STEPS: Final = (200, 1000)
"""Least and most updates where their number is not given."""
_STEPS_PER_IMAGE: Final = 20
"""Updates for each image, between those two."""


@dataclass(frozen=True, slots=True)
class FineTuneConfig:
    """Settings of a fine-tuning run."""

    steps: int = 0
    """Updates; 0: twenty for each image, at least 200 and at most 1000."""
    batch: int = 2
    """Images of an update, one after the other: memory is that of one image."""
    learning_rate: float = 0.0
    """Learning rate of AdamW; 0: that of the mode (head 1e-4, lora 2e-4, full 1e-5; prompt 0.02 of
    the size of a vector)."""
    warm_up: int = 10
    """Updates in which the learning rate rises linearly."""
    decay_from: float = 0.7
    """Part of the run, 0..1, after which it falls to zero (cosine)."""
    weight_decay: float = 0.01
    """Weight decay of matrices; vectors of words, norms and biases have none."""
    layer_decay: float = 0.8
    """full: learning rate of a backbone block over that of the next one, 0..1."""
    clip: float = 0.1
    """Largest norm of the gradient; a larger one is scaled down."""
    rank: int = 8
    """lora: rank of a change."""
    negative_words: int = 64
    """Old words among the prompts of a step, which no region of the images is."""
    views: int = 2
    """prompt and head: views of an image whose features are kept, the first one as it is."""
    features_gb: float = 20.0
    """prompt and head: most gigabytes of features on disk; what is over it is computed again."""
    scale: tuple[float, float] = (0.5, 1.5)
    """Range of the image's size over the size that fits (large-scale jitter)."""
    held_back: float = 0.2
    """Part of the images that the score is taken on, where there is no --validation, 0..1."""
    precision: str = "float32"
    """`float32`, or `float16` or `bfloat16` on hardware that is faster in it."""
    checkpointing: bool = True
    """lora and full: activations of layers are computed twice and not kept."""
    seed: int = 0
    """Of the split, the views and the negatives."""
    workers: int = 1
    """Processes that load images; 0: the training process itself."""
    save_every_s: float = 120.0
    """Seconds between two states."""
    report_every: int = 20
    """Images between two lines of the log."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        check_at_least(self, 1, "batch", "rank", "views", "report_every")
        check_at_least(self, 0, "steps", "warm_up", "negative_words", "seed", "workers")
        check_at_least(self, 0, "learning_rate", "weight_decay", "features_gb")
        check_above_0(self, "clip")
        check_rising(self, "scale")
        check_share(self, "layer_decay", above_0=True)
        check_share(self, "decay_from", "held_back", below_1=True)
        check_one_of(self, "precision", PRECISIONS)

    def rate(self, mode: Mode) -> float:
        """Learning rate of a mode."""
        return self.learning_rate or _RATES[mode]

    def updates(self, images: int) -> int:
        """Updates of a run on so many images."""
        least, most = _STEPS
        return self.steps or min(most, max(least, _STEPS_PER_IMAGE * images))


def read_config(path: Path | None, **changes: Any) -> FineTuneConfig:
    """Read settings.

    Args:
        path: A TOML file; None: the defaults.
        **changes: Fields that replace the file's where they are not None.

    Raises:
        RecipeError: the file cannot be read, or a key or value does not fit.
    """
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise RecipeError(f"{path} is not a recipe: {error}") from error
    table |= {key: value for key, value in changes.items() if value is not None}
    where = "the command line" if path is None else str(path)
    return read_table(FineTuneConfig, table, where, error=RecipeError)
