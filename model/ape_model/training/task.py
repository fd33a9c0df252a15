"""The data sets of a run put together: batches, their prompts, and images for validation."""

from __future__ import annotations

import json
import os
import random
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ape_model.config import NANO
from ape_model.io.safetensors_io import read_metadata
from ape_model.training.data.coco_dataset import CocoBatches
from ape_model.training.data.config import WORLD
from ape_model.training.data.mixture import MixedBatches
from ape_model.training.data.world_dataset import WorldBatches
from ape_model.training.errors import DataError
from ape_model.training.prompts.negatives import NegativeSampler
from ape_model.training.prompts.sampler import PromptingConfig, PromptSampler
from ape_model.world import World
from ape_stream.datasets.instances import DatasetError
from ape_stream.datasets.read import read_instances

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from ape_model.training.data.batch import Example
    from ape_model.training.data.config import DataConfig
    from ape_model.training.recipe import Recipe
    from ape_stream.datasets.instances import InstanceData

__all__ = ["Task", "ValidationSet", "build_task"]

RANDOM_WORDS = 400
"""Words of random letters among the negatives: a typing error should find nothing."""
VALIDATION_IMAGES = 24
"""Images of each data set in a validation."""
COMMON_WORDS = 6000
"""Words of the text tower among the negatives; the most frequent ones come first."""
WORLD_REPEATS = 4
"""How often the world's names are among the negatives of COCO data: nano knows them already, and
fine-tuning must not make it forget them."""


@dataclass(frozen=True, slots=True, eq=False)
class ValidationSet:
    """Images and names that a vocabulary is validated with."""

    source: str
    """Name of the data set."""
    names: Tensor
    """(C, D) vectors of the main names, things first."""
    things: int
    """Number of names of things."""
    examples: Sequence[Example]
    """Images: for the world, scenes that no run trains on; for COCO data, its first images."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Everything that a run trains on."""

    data: MixedBatches
    """The batches."""
    prompt_sampler: PromptSampler
    """The prompts of the batches."""
    validation_sets: tuple[ValidationSet, ...]
    """One for each data set of names."""
    words: tuple[str, ...]
    """Every name and synonym that is learnt as a name."""
    stuff: tuple[str, ...]
    """Those of them that are stuff in COCO data."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One data set."""

    data: WorldBatches | CocoBatches
    prompting: PromptingConfig
    validation: ValidationSet | None
    words: tuple[str, ...] = ()
    stuff: tuple[str, ...] = ()


class _Builder:
    """Makes the data sets of a recipe, one at a time."""

    def __init__(
        self, recipe: Recipe, encode: Callable[[Sequence[str]], Tensor], negative_words: list[str]
    ) -> None:
        self.recipe, self.encode, self.negative_words = recipe, encode, negative_words
        self.rank = int(os.environ.get("RANK", "0"))  # set by torchrun

    def world(self, config: DataConfig) -> _Part:
        """Make the data set of the drawn world."""
        loop, world = self.recipe.loop, World()
        data = WorldBatches(
            self.recipe.phases, seed=loop.seed, network=NANO, steps=loop.steps, rank=self.rank
        )
        words = tuple(prompt.text for prompt in world.prompts)
        truth = torch.from_numpy(world.truth.copy())
        negatives = NegativeSampler(self.encode, words, truth, self.negative_words)
        examples = [data.unseen(k) for k in range(VALIDATION_IMAGES)]
        validation = ValidationSet(WORLD, negatives.names, world.things, examples)
        prompting = PromptingConfig(
            negatives, negative_words=loop.negative_words, memory=config.memory, named=True
        )
        return _Part(data, prompting, validation, words)

    def images(self, config: DataConfig, coco: InstanceData) -> _Part:
        """Make the data set of a user's images."""
        loop = self.recipe.loop
        data = CocoBatches(
            coco,
            self.recipe.phases,
            config,
            seed=loop.seed,
            network=NANO,
            steps=loop.steps,
            rank=self.rank,
        )
        words, truth = _prompts(coco.names, coco.synonyms)
        # Negatives are drawn evenly from one list: a word that is in it n times comes n-fold.
        known = [prompt.text for prompt in World().prompts] * WORLD_REPEATS
        negatives = NegativeSampler(self.encode, words, truth, known + self.negative_words)
        prompting = PromptingConfig(
            negatives,
            shared=config.prompts == "phrase",
            negative_words=loop.negative_words,
            federated=config.federated,
            frequencies=torch.tensor(coco.frequencies()),
            memory=config.memory,
            semantic=config.semantic,
        )
        if config.uses_phrases:
            return _Part(data, prompting, None)
        side = (NANO.unit, NANO.unit)
        examples = [data.example(k, side) for k in range(min(VALIDATION_IMAGES, len(data.usable)))]
        validation = ValidationSet(config.source, negatives.names, coco.things, examples)
        stuff = [word for word, row in zip(words, truth, strict=True) if row[coco.things :].any()]
        return _Part(data, prompting, validation, tuple(words), tuple(stuff))


def build_task(
    recipe: Recipe,
    folder: Path,
    encode: Callable[[Sequence[str]], Tensor],
    text: Path,
    report: Callable[[str], None],
) -> Task:
    """Put the data sets of a recipe together.

    Args:
        recipe: its data sets.
        folder: base of relative paths.
        encode: texts to (N, D) vectors of length one.
        text: file of the text tower, whose words become negatives.
        report: called with a line about every data set of images.

    Raises:
        DataError: a data set cannot be trained on.
    """
    builder = _Builder(recipe, encode, [*_common_words(text), *_random_words()])
    parts = []
    for config in recipe.data:
        if config.source == WORLD:
            parts.append(builder.world(config))
            continue
        source = folder / config.source
        given = _read(source, folder / config.images if config.images else None)
        report(f"{source}: {len(given.labelled)} images, left out: {given.skips}")
        parts.append(builder.images(config, given))
    data = [part.data for part in parts]
    ratios = [config.ratio for config in recipe.data]
    seed = recipe.loop.seed
    return Task(
        MixedBatches(data, ratios, seed=seed),
        PromptSampler([part.prompting for part in parts], width=NANO.ape.text_width, seed=seed),
        tuple(part.validation for part in parts if part.validation is not None),
        tuple(dict.fromkeys(word for part in parts for word in part.words)),
        tuple(dict.fromkeys(word for part in parts for word in part.stuff)),
    )


def _read(source: Path, images: Path | None) -> InstanceData:
    """Read a data set; images without a region are counted as left out.

    Raises:
        DataError: it cannot be trained on.
    """
    try:
        data = read_instances(source, images)
    except DatasetError as error:
        raise DataError(str(error)) from error
    data.skips.add("image without a region", len(data.images) - len(data.labelled))
    return data


def _prompts(names: Sequence[str], synonyms: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """Return P prompts of a data set, main names first, and their (P, C) truth."""
    # A synonym is true of the class that it names, as the main name is.
    further = [(word, k) for k, words in enumerate(synonyms) for word in words]
    truth = torch.zeros(len(names) + len(further), len(names), dtype=torch.bool)
    for row, k in enumerate([*range(len(names)), *(k for _, k in further)]):
        truth[row, k] = True
    return [*names, *(word for word, _ in further)], truth


def _common_words(text: Path) -> list[str]:
    """Frequent words that the text tower knows."""
    words: list[str] = json.loads(read_metadata(text)["words"])
    return [w for w in words if w.isalpha() and len(w) > 2][:COMMON_WORDS]


def _random_words() -> list[str]:
    """Words of four to nine random letters, always the same."""
    rng = random.Random(5)  # noqa: S311
    letters = string.ascii_lowercase
    return ["".join(rng.choices(letters, k=rng.randint(4, 9))) for _ in range(RANDOM_WORDS)]
