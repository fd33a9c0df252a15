"""The data sets of a run put together: batches, their prompts, and images for validation."""

from __future__ import annotations

import json
import os
import random
import string
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ape_model.config import NANO
from ape_model.io.safetensors_io import read_metadata
from ape_model.training.data.canvases import fit_phases, needs_sides
from ape_model.training.data.coco_dataset import CocoBatches
from ape_model.training.data.config import WORLD
from ape_model.training.data.held_back import split, with_classes_of
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
"""Images of each data set in a validation, where none are held back."""
HELD_BACK_IMAGES = 100
"""Most images that are held back: more would cost time, not certainty."""
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
    """Images: for the world, scenes that no run trains on; for COCO data, those that are held back,
    or its first images."""


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
    canvas: int | None
    """Long side of the canvases, where it comes from the data, pixels."""


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

    def images(self, config: DataConfig, coco: InstanceData, scored: InstanceData) -> _Part:
        """Make the data set of a user's images; `scored` are those of the validation."""
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
        most = VALIDATION_IMAGES if scored is coco else HELD_BACK_IMAGES
        canvas = self.recipe.phases[-1].canvases[0]
        shown = CocoBatches(scored, self.recipe.phases, config, seed=0, network=NANO, steps=1)
        examples = [
            shown.plain(k, max(canvas.height, canvas.width))
            for k in range(min(most, len(shown.usable)))
        ]
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
        recipe: Its data sets.
        folder: Base of relative paths.
        encode: Texts to (N, D) vectors of length one.
        text: File of the text tower, whose words become negatives.
        report: Called with a line about every data set of images.

    Raises:
        DataError: a data set cannot be trained on.
    """
    read = [
        None if config.source == WORLD else _open(config, folder, recipe.loop.seed, report)
        for config in recipe.data
    ]
    fitted = needs_sides(recipe.phases)
    phases = fit_phases(recipe.phases, [one[0] for one in read if one is not None])
    recipe = replace(recipe, phases=phases)
    builder = _Builder(recipe, encode, [*_common_words(text), *_random_words()])
    parts = [
        builder.world(config) if sets is None else builder.images(config, *sets)
        for config, sets in zip(recipe.data, read, strict=True)
    ]
    last = phases[-1].canvases[0]
    if fitted:
        report(f"canvas {last.width}x{last.height}, {last.batch} images a step")
    data = [part.data for part in parts]
    ratios = [config.ratio for config in recipe.data]
    seed = recipe.loop.seed
    return Task(
        MixedBatches(data, ratios, seed=seed),
        PromptSampler([part.prompting for part in parts], width=NANO.ape.text_width, seed=seed),
        tuple(part.validation for part in parts if part.validation is not None),
        tuple(dict.fromkeys(word for part in parts for word in part.words)),
        tuple(dict.fromkeys(word for part in parts for word in part.stuff)),
        max(last.height, last.width) if fitted else None,
    )


def _open(
    config: DataConfig, folder: Path, seed: int, report: Callable[[str], None]
) -> tuple[InstanceData, InstanceData]:
    """Read the images of a data set: those to learn from, and those for the score."""
    source = folder / config.source
    data = _read(source, folder / config.images if config.images else None)
    report(f"{source}: {len(data.labelled)} images, left out: {data.skips}")
    if config.validation:
        path = folder / config.validation
        other = with_classes_of(data, _read(path, None), path)
        report(f"{path}: {len(other.images)} images for the score, left out: {other.skips}")
        return data, other
    if not config.held_back:
        return data, data
    kept, aside = split(replace(data, images=data.labelled), config.held_back, seed)
    if kept is not aside:
        report(f"{len(aside.images)} of them are held back for the score")
    return kept, aside


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
