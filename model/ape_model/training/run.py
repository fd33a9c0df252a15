"""A training run put together: data, prompts, network, loop, result."""

from __future__ import annotations

import os
import random
import shutil
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ape_model.loading import load_text_encoder, parse_device
from ape_model.nano import Nano
from ape_model.nano_config import NANO
from ape_model.store import resolve
from ape_model.training.coco import CocoBatches, read_coco
from ape_model.training.errors import RecipeError
from ape_model.training.export import export, recipe_hash
from ape_model.training.loop import Trainer
from ape_model.training.prompt_bank import PromptBank
from ape_model.training.recipe import read_recipe
from ape_model.training.scenes import SceneBatches
from ape_model.training.validate import validate
from ape_model.weights import load_weights
from ape_model.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from ape_model.store import ModelFiles
    from ape_model.training.batch import Example
    from ape_model.training.recipe import Recipe

__all__ = ["Order", "run"]

MADE_UP = 400
"""Words of random letters among the strangers: a typing error should name nothing."""
CHECKED = 24
"""Pictures that a validation looks at."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for."""

    recipe: Path
    out: Path
    data: Path | None = None
    pictures: Path | None = None
    init: str | None = None
    steps: int | None = None
    seed: int | None = None
    device: str = "auto"


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """Batches, their prompts, and pictures to judge by."""

    data: SceneBatches | CocoBatches
    bank: PromptBank
    judged: Sequence[Example]
    things: int


def run(order: Order, say: Callable[[str], None]) -> Path:
    """Train to the recipe's last step, from the folder's last state where there is one.

    Args:
        order: what to do.
        say: takes progress lines.

    Returns:
        the file of weights.

    Raises:
        ModelError: recipe, data or weights are at fault; or the loss is no number.
    """
    recipe = read_recipe(order.recipe, steps=order.steps, seed=order.seed)
    if not recipe.stages or recipe.stages[0].first != 0:
        raise RecipeError(f"{order.recipe}: the first [[stage]] begins at step 0")
    files = resolve("nano")
    encoder = load_text_encoder(files, torch.device("cpu"), torch.float32)
    task = _task(order, recipe, encoder.encode, files, say)
    torch.manual_seed(recipe.loop.seed)
    model = Nano(NANO)
    if order.init is not None:
        load_weights(model, resolve(order.init).vision)
    model = model.to(parse_device(order.device))
    trainer = Trainer(model, task.bank, recipe.loop, order.out, say)
    if trainer.load():
        say(f"going on from step {trainer.step}")
    trainer.run(task.data, lambda done: _judge(done, task, say))
    path = order.out / "nano.safetensors"
    if trainer.first:
        facts = {"seed": recipe.loop.seed, "steps": trainer.step, "images": trainer.images}
        export(model, trainer.ema, path, facts | {"recipe": recipe_hash(recipe)})
        if files.text is not None:
            shutil.copyfile(files.text, order.out / "nano_text.safetensors")
        say(f"wrote {path}")
    return path


def _task(
    order: Order,
    recipe: Recipe,
    encode: Callable[[Sequence[str]], Tensor],
    files: ModelFiles,
    say: Callable[[str], None],
) -> _Task:
    rank = int(os.environ.get("RANK", "0"))
    world, loop = World(), recipe.loop
    strangers = [*_words(files), *_made_up()]
    if order.data is None:
        prompts = [p.text for p in world.prompts]
        bank = PromptBank(encode, prompts, torch.from_numpy(world.truth.copy()), strangers)
        scenes = SceneBatches(
            recipe.stages, seed=loop.seed, unit=NANO.unit, steps=loop.steps, rank=rank
        )
        judged = [scenes.unseen(k) for k in range(CHECKED)]
        return _Task(scenes, bank, judged, world.things)
    data = read_coco(order.data, order.pictures)
    if data.skips.counts:
        say(f"left out of {order.data}: {data.skips.counts}")
    prompts, truth = _prompts(data.names, data.synonyms)
    # What nano already knows stays a negative, or fine-tuning would forget to tell it apart.
    strangers = [p.text for p in world.prompts] * 4 + strangers
    batches = CocoBatches(
        data, recipe.stages, seed=loop.seed, unit=NANO.unit, steps=loop.steps, rank=rank
    )
    judged = [
        batches.example(k, (NANO.unit, NANO.unit), None)
        for k in range(min(CHECKED, len(data.pictures)))
    ]
    return _Task(batches, PromptBank(encode, prompts, truth, strangers), judged, len(data.names))


def _prompts(names: Sequence[str], synonyms: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """All prompts of a data set, main names first, and (P, C) truth."""
    further = [(word, k) for k, words in enumerate(synonyms) for word in words]
    truth = torch.zeros(len(names) + len(further), len(names), dtype=torch.bool)
    for row, k in enumerate([*range(len(names)), *(k for _, k in further)]):
        truth[row, k] = True
    return [*names, *(word for word, _ in further)], truth


def _words(files: ModelFiles) -> list[str]:
    """Common words that the text tower knows."""
    import json  # noqa: PLC0415

    from ape_model.files import read_metadata  # noqa: PLC0415

    words: list[str] = [] if files.text is None else json.loads(read_metadata(files.text)["words"])
    return [w for w in words if w.isalpha() and len(w) > 2][:6000]


def _made_up() -> list[str]:
    rng = random.Random(5)  # noqa: S311
    return [
        "".join(rng.choices(string.ascii_lowercase, k=rng.randint(4, 9))) for _ in range(MADE_UP)
    ]


def _judge(trainer: Trainer, task: _Task, say: Callable[[str], None]) -> None:
    """Validate the averaged weights and tell."""
    model = Nano(NANO)
    model.load_state_dict({key: value.cpu() for key, value in trainer.ema.items()})
    found = validate(model.eval(), task.bank.names, task.things, task.judged)
    say(f"step {trainer.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()))
