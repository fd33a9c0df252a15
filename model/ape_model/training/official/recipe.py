"""How a released model was trained, as data: `recipes/ape_*.toml` (APE, section 4.1).

The figures are those of the official configurations; docs/training.md lists where they are silent.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ape_model.config import PRESETS
from ape_model.training.errors import RecipeError
from ape_model.training.losses.official import TERMS, CriterionConfig
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
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "Augmentation",
    "DataRow",
    "OfficialRecipe",
    "OptimizerConfig",
    "Schedule",
    "is_official",
    "read_official_recipe",
]

_CHECKPOINTED = ("backbone", "encoder", "fusion")


@dataclass(frozen=True, slots=True)
class DataRow:
    """A `[[data]]` table: one data set of the run."""

    name: str
    """Its name in the official code."""
    annotations: str
    """File in COCO's format under the root of the data sets."""
    images: str
    """Folder of the images, likewise."""
    classes: int
    """Number of names; of phrases, how many prompts a step has with those of earlier steps."""
    stuff: str = ""
    """Panoptic file whose stuff classes come after the file's own; empty: none."""
    stuff_maps: str = ""
    """Folder of PNG files with the stuff of every image: 0 thing, 1.. stuff, 255 unknown."""
    ratio: float = 1.0
    """How often a step draws from it, over the sum of all ratios."""
    repeat: float = 0.0
    """Frequency, 0..1, below which images of a class are repeated (repeat-factor sampling of Gupta
    et al. 2019, LVIS, section 4); 0: no image is."""
    copy_paste: float = 0.0
    """Probability that an image's things are pasted on the free background of another image."""
    keep_empty: bool = False
    """Images without a region in the file are kept: their regions are in a JSON file next to the
    image, as in SA-1B."""
    prompts: Literal["name", "phrase"] = "name"
    """`name`: all names of the set, not fused. `phrase`: descriptions of regions, fused."""
    federated: int = 0
    """Classes in a step, for data that are not labelled exhaustively (federated loss); 0: all."""
    federated_pad: Literal["kth", "cat"] = "kth"
    """Stuff has no count of images. `kth`: it is drawn as a class that is more frequent than 70 %
    of all. `cat`: all of it is in every step."""
    decoder: tuple[str, ...] = TERMS
    """Loss terms of the decoder layers; those of masks count where a region has a mask."""
    encoder: tuple[str, ...] = ("class", "bbox", "giou")
    """Loss terms of the first stage."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range or does not go with the others.
        """
        check_above_0(self, "ratio")
        check_at_least(self, 1, "classes")
        check_share(self, "repeat", "copy_paste")
        check_at_least(self, 0, "federated")
        if self.federated and self.prompts == "phrase":
            raise ValueError("federated is for names")
        if bool(self.stuff) != bool(self.stuff_maps):
            raise ValueError("stuff and stuff_maps belong together")
        if self.copy_paste and self.prompts == "phrase":
            raise ValueError("copy_paste is for names: a phrase would not hold in another image")
        if not self.decoder and not self.encoder:
            raise ValueError("at least one of decoder and encoder has a term")
        self.criterion  # noqa: B018 (checks the terms)

    @property
    def criterion(self) -> CriterionConfig:
        """What is learnt from this data set."""
        return CriterionConfig(decoder=self.decoder, encoder=self.encoder)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The table `[schedule]`: length and learning rate, in batches and not in updates."""

    steps: int
    """Batches of the run."""
    drop_at: int
    """Batch from which the learning rate is `drop` times as large."""
    warm_up: int
    """Batches in which the learning rate rises linearly."""
    warm_up_from: float = 0.001
    """Factor of the learning rate at the first batch."""
    drop: float = 0.1
    """Factor of the learning rate at the end."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        check_at_least(self, 1, "steps")
        check_at_least(self, 0, "drop_at", "warm_up")
        check_share(self, "drop", above_0=True)
        check_share(self, "warm_up_from")

    def factor(self, step: int) -> float:
        """Factor of the learning rate at a batch."""
        if step < self.warm_up:
            return self.warm_up_from + (1 - self.warm_up_from) * step / self.warm_up
        return 1.0 if step < self.drop_at else self.drop

    def rate(self, group: Mapping[str, Any], step: int) -> float:
        """Learning rate of a group of the optimizer at a batch."""
        base: float = group["base"]
        return base * self.factor(step)


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """The table `[optimizer]`: AdamW, and rates of layers."""

    learning_rate: float = 2e-4
    """Learning rate between warm-up and drop."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the averages of gradients and of their squares."""
    weight_decay: float = 0.05
    """Of all weights but the position table."""
    layer_decay: float = 0.8
    """Learning rate of a backbone block over that of the next one, 0..1."""
    decay_layers: int = 24
    """Blocks that the decay counts: block i has the factor layer_decay^(decay_layers - i), also in
    a backbone of fewer blocks."""
    clip: float = 0.1
    """Largest norm of the gradient; a larger one is scaled down."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        check_above_0(self, "learning_rate", "clip")
        check_share(self, "layer_decay", above_0=True)
        check_at_least(self, 0, "weight_decay")
        check_at_least(self, 1, "decay_layers")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {[*self.betas]}: each must be within 0..1 and below 1")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The table `[augmentation]`: what happens to an image, and to its phrases."""

    canvas: int = 1024
    """Side of the square that an image is resized to and cropped by; it isn't padded to it."""
    scale: tuple[float, float] = (0.1, 1.0)
    """Range of the image's size over the size that fits, of one half of all images and of those
    whose phrases count ("the second ..."): they are never cropped."""
    scale_with_crop: tuple[float, float] = (0.1, 2.0)
    """Range of the other half (large-scale jitter, Ghiasi et al. 2021)."""
    flip: float = 0.5
    """Probability that an image is mirrored."""
    most_phrases: int = 128
    """Phrases of an image; of more, some are drawn."""
    phrase_iou: float = 0.6
    """Of two described regions that overlap more, one is drawn."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        check_at_least(self, 1, "canvas", "most_phrases")
        check_rising(self, "scale", "scale_with_crop")
        check_share(self, "flip")
        check_share(self, "phrase_iou", above_0=True)


@dataclass(frozen=True, slots=True)
class OfficialRecipe:
    """Everything that decides a run, except for the images and the initial weights."""

    model: str
    """Sizes of the network: A, B, C, D or Ti."""
    init: str
    """Pre-trained weights that the backbone starts from, by their published name."""
    mixture: Literal["mixed", "separate"]
    """`mixed`: sets are drawn by ratio as if all had the size of the largest one, times the mean
    repeat factor of their images. `separate`: by ratio alone."""
    schedule: Schedule
    """Length and learning rate."""
    data: tuple[DataRow, ...]
    """The data sets; a batch is of one of them."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """AdamW."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Of all data sets."""
    batch: int = 16
    """Images of a batch, in all processes together."""
    accumulate: int = 1
    """Batches whose gradients make one update."""
    precision: str = "float16"
    """What a GPU computes in: `float16`, `bfloat16` or `float32`; a CPU computes in float32."""
    compress: bool = True
    """Processes send each other gradients as float16."""
    drop_path: float = 0.4
    """Stochastic depth of the backbone (Huang et al. 2016): rate of the last block, 0..1; it rises
    linearly from 0."""
    fusion_dropout: float = 0.1
    """Part of the attention weights between image and text that is left out, 0..1 (GLIP)."""
    checkpointing: tuple[str, ...] = ("backbone",)
    """Parts that compute twice instead of keeping activations: backbone, encoder, fusion."""
    workers: int = 4
    """Processes that load batches."""
    save_every: int = 5000
    """Batches between two states."""
    keep: int = 2
    """States that are kept."""
    report_every: int = 20
    """Batches between two lines of the log."""
    seed: int = 0
    """Of everything that is drawn; the official runs drew theirs."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range or does not go with the others.
        """
        check_one_of(self, "model", PRESETS)
        if not self.data:
            raise ValueError("at least one [[data]] table")
        check_at_least(self, 1, "batch", "accumulate", "save_every", "keep", "report_every")
        check_at_least(self, 0, "workers", "seed")
        check_share(self, "drop_path", "fusion_dropout", below_1=True)
        check_one_of(self, "precision", PRECISIONS)
        unknown = set(self.checkpointing) - set(_CHECKPOINTED)
        if unknown:
            raise ValueError(f"checkpointing has no part {min(unknown)!r}")


def is_official(path: Path) -> bool:
    """Whether a file describes a run of a released model: it names one; recipes of nano do not."""
    return "model" in _read(path)


def read_official_recipe(path: Path, **schedule: Any) -> OfficialRecipe:
    """Read a recipe.

    Args:
        path: A TOML file.
        **schedule: Fields of `Schedule` or `seed` that replace the file's where they are not None.

    Raises:
        RecipeError: the file cannot be read, or a key or value does not fit.
    """
    table = _read(path)
    given = {key: value for key, value in schedule.items() if value is not None}
    if "seed" in given:
        table["seed"] = given.pop("seed")
    if isinstance(table.get("schedule"), dict):
        table["schedule"] = table["schedule"] | given
    return read_table(OfficialRecipe, table, str(path), error=RecipeError)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is not a recipe: {error}") from error
