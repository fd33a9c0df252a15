"""The data sets of a run put together: batches, how they are asked for, pictures to judge by."""

from __future__ import annotations

import json
import os
import random
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ape_model.io.safetensors_io import read_metadata
from ape_model.nano_config import NANO
from ape_model.training.data.coco import read_coco
from ape_model.training.data.coco_dataset import CocoBatches
from ape_model.training.data.config import WORLD
from ape_model.training.data.mixture import MixedBatches
from ape_model.training.data.world_dataset import SceneBatches
from ape_model.training.prompts.negatives import PromptBank
from ape_model.training.prompts.sampler import Prompter, Speech
from ape_model.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from ape_model.training.data.batch import Example
    from ape_model.training.data.coco import CocoData
    from ape_model.training.data.config import DataConfig
    from ape_model.training.recipe import Recipe

__all__ = ["Judged", "Task", "build_task"]

MADE_UP = 400
"""Words of random letters among the strangers: a typing error should name nothing."""
CHECKED = 24
"""Pictures of each data set that a validation looks at."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What a vocabulary is judged by while it is learnt."""

    source: str
    """Its data set."""
    names: Tensor
    """(C, D) vectors of its main names, things first."""
    things: int
    """How many of the names are things."""
    examples: Sequence[Example]
    """Pictures: unseen ones of the world, the first ones of COCO data."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """All that is learnt in a run."""

    data: MixedBatches
    """Its batches."""
    prompter: Prompter
    """How they are asked for."""
    judged: tuple[Judged, ...]
    """One for each data set of names."""
    words: tuple[str, ...]
    """Every name and synonym that is learnt as a name."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One data set."""

    data: SceneBatches | CocoBatches
    speech: Speech
    judged: Judged | None
    words: tuple[str, ...]


class _Builder:
    """Makes the data sets of a recipe."""

    def __init__(
        self, recipe: Recipe, encode: Callable[[Sequence[str]], Tensor], strangers: list[str]
    ) -> None:
        self.recipe, self.encode, self.strangers = recipe, encode, strangers
        self.rank = int(os.environ.get("RANK", "0"))

    def world(self, config: DataConfig) -> _Part:
        """Make the drawn world."""
        loop, world = self.recipe.loop, World()
        data = SceneBatches(
            self.recipe.stages, seed=loop.seed, network=NANO, steps=loop.steps, rank=self.rank
        )
        words = tuple(prompt.text for prompt in world.prompts)
        bank = PromptBank(self.encode, words, torch.from_numpy(world.truth.copy()), self.strangers)
        examples = [data.unseen(k) for k in range(CHECKED)]
        judged = Judged(WORLD, bank.names, world.things, examples)
        speech = Speech(bank, strangers=loop.strangers, memory=config.memory, named=True)
        return _Part(data, speech, judged, words)

    def pictures(self, config: DataConfig, coco: CocoData) -> _Part:
        """Make a data set of a user's pictures."""
        loop = self.recipe.loop
        data = CocoBatches(
            coco,
            self.recipe.stages,
            config,
            seed=loop.seed,
            network=NANO,
            steps=loop.steps,
            rank=self.rank,
        )
        words, truth = _prompts(coco.names, coco.synonyms)
        # What nano already knows stays a negative, or fine-tuning would forget to tell it apart.
        known = [prompt.text for prompt in World().prompts] * 4
        bank = PromptBank(self.encode, words, truth, known + self.strangers)
        speech = Speech(
            bank,
            shared=config.prompts == "phrase",
            strangers=loop.strangers,
            federated=config.federated,
            frequencies=torch.tensor(coco.frequencies()),
            memory=config.memory,
            semantic=config.semantic,
        )
        if config.spoken:
            return _Part(data, speech, None, ())
        side = (NANO.unit, NANO.unit)
        examples = [data.example(k, side) for k in range(min(CHECKED, len(coco.pictures)))]
        judged = Judged(config.source, bank.names, coco.things, examples)
        return _Part(data, speech, judged, tuple(words))


def build_task(
    recipe: Recipe,
    folder: Path,
    encode: Callable[[Sequence[str]], Tensor],
    text: Path,
    say: Callable[[str], None],
) -> Task:
    """Put the data sets of a recipe together.

    Args:
        recipe: names them.
        folder: where relative paths begin.
        encode: texts to (N, D) vectors of length one.
        text: file of the text tower, whose words may be asked for as strangers.
        say: told what was left out of a data set.

    Raises:
        DataError: a data set cannot be trained on.
    """
    builder = _Builder(recipe, encode, [*_words(text), *_made_up()])
    parts = []
    for config in recipe.data:
        if config.source == WORLD:
            parts.append(builder.world(config))
            continue
        source = folder / config.source
        coco = read_coco(source, folder / config.pictures if config.pictures else None)
        say(f"{source}: {len(coco.pictures)} pictures, left out: {coco.skips}")
        parts.append(builder.pictures(config, coco))
    data = [part.data for part in parts]
    ratios = [config.ratio for config in recipe.data]
    seed = recipe.loop.seed
    return Task(
        MixedBatches(data, ratios, seed=seed),
        Prompter([part.speech for part in parts], width=NANO.ape.text_width, seed=seed),
        tuple(part.judged for part in parts if part.judged is not None),
        tuple(dict.fromkeys(word for part in parts for word in part.words)),
    )


def _prompts(names: Sequence[str], synonyms: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """All prompts of a data set, main names first, and (P, C) truth."""
    further = [(word, k) for k, words in enumerate(synonyms) for word in words]
    truth = torch.zeros(len(names) + len(further), len(names), dtype=torch.bool)
    for row, k in enumerate([*range(len(names)), *(k for _, k in further)]):
        truth[row, k] = True
    return [*names, *(word for word, _ in further)], truth


def _words(text: Path) -> list[str]:
    """Common words that the text tower knows."""
    words: list[str] = json.loads(read_metadata(text)["words"])
    return [w for w in words if w.isalpha() and len(w) > 2][:6000]


def _made_up() -> list[str]:
    rng = random.Random(5)  # noqa: S311
    return [
        "".join(rng.choices(string.ascii_lowercase, k=rng.randint(4, 9))) for _ in range(MADE_UP)
    ]
