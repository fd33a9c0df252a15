"""A training run put together: data, prompts, network, loop, result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ape_model.loading import load_text_encoder, parse_device
from ape_model.nano_config import NANO
from ape_model.network.nano import Nano
from ape_model.training.data.config import DataConfig
from ape_model.training.errors import RecipeError
from ape_model.training.export import export_model, recipe_hash
from ape_model.training.recipe import read_recipe
from ape_model.training.task import build_task
from ape_model.training.text_tower.check import check_spread, measure_spread
from ape_model.training.trainer import Trainer
from ape_model.training.validate import validate
from ape_model.weights.import_official import VISION_FILE
from ape_model.weights.registry import find_model
from ape_model.weights.state_dict import load_weights
from ape_model.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ape_model.training.recipe import Recipe
    from ape_model.training.task import Judged
    from ape_model.training.text_tower.check import Spread

__all__ = ["Order", "run"]


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


def run(order: Order, say: Callable[[str], None]) -> Path:
    """Train to the recipe's last step, from the folder's last state where there is one.

    Args:
        order: what to do.
        say: takes progress lines.

    Returns:
        the network's file of weights; its folder is a model (`--model`, `--init`).

    Raises:
        ModelError: recipe, data or weights are at fault; or the loss is no number.
    """
    recipe = _with_data(read_recipe(order.recipe, steps=order.steps, seed=order.seed), order)
    device, folder = parse_device(order.device), order.recipe.parent
    files = find_model(order.init or "nano")
    if recipe.loop.text:
        files = replace(files, text=folder / recipe.loop.text)
    if files.variant != "nano" or files.text is None:
        raise RecipeError(f"{files.name} is no nano with its text tower; the trainer trains those")
    encode = load_text_encoder(files, torch.device("cpu"), torch.float32).encode
    spread = _gate(encode, say)
    task = build_task(recipe, folder, encode, files.text, say)
    torch.manual_seed(recipe.loop.seed)
    model = Nano(NANO)
    if order.init is not None:
        load_weights(model, files.vision)
    trainer = Trainer(model.to(device), task.prompter, recipe.loop, order.out, say)
    if trainer.load():
        say(f"going on from step {trainer.step}")
    elif trainer.first:
        trainer.log(
            {"step": 0, "text_rank": spread.effective_rank, "text_cosine": spread.nearest_cosine}
        )
    trainer.run(task.data, lambda done: _judge(done, task.judged, say))
    if not trainer.first:
        return order.out / VISION_FILE
    facts = {"seed": recipe.loop.seed, "steps": trainer.step, "images": trainer.images}
    known = files.vocabulary if order.init is not None else frozenset[str]()
    path = export_model(
        order.out,
        trainer.model,
        trainer.ema,
        files.text,
        known.union(task.words),
        facts | {"recipe": recipe_hash(recipe)},
    )
    say(f"wrote {path}; use it with --model {order.out}")
    return path


def _with_data(recipe: Recipe, order: Order) -> Recipe:
    """Put the data set of the command line into the recipe."""
    if order.data is None:
        if order.pictures is not None:
            raise RecipeError("--pictures is the folder of the pictures of --data; give both")
        return recipe
    if recipe.data != (DataConfig(),):
        raise RecipeError(f"{order.recipe} names its data itself; leave --data out")
    pictures = "" if order.pictures is None else str(order.pictures.absolute())
    return replace(recipe, data=(DataConfig(str(order.data.absolute()), pictures),))


def _gate(encode: Callable[[Sequence[str]], Tensor], say: Callable[[str], None]) -> Spread:
    """Measure the text tower, tell, and refuse one on which no vision can be trained."""
    spread = measure_spread(encode([name.casefold() for name in World().names]))
    say(f"text tower: {spread}")
    check_spread(spread)
    return spread


def _judge(trainer: Trainer, judged: Sequence[Judged], say: Callable[[str], None]) -> None:
    """Validate the averaged weights on every vocabulary, tell and log."""
    model = Nano(NANO)
    model.load_state_dict({key: value.cpu() for key, value in trainer.ema.items()})
    for one in judged:
        found = validate(model.eval(), one.names, one.things, one.examples)
        said = ", ".join(f"{key} {value:.3f}" for key, value in found.items())
        say(f"step {trainer.step}, {Path(one.source).name}: {said}")
        name = {} if len(judged) == 1 else {"source": one.source}
        trainer.log({"step": trainer.step, **name, **found})
