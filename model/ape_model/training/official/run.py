"""A run of a recipe: data sets, network and prompts into the engine, and its result to a model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ape_model.config import PRESETS
from ape_model.loading import load_text_encoder
from ape_model.network.ape import Ape
from ape_model.training.checkpointing import checkpoint_layers
from ape_model.training.dropout import add_drop_path, add_fusion_dropout
from ape_model.training.engine import Engine, Learner
from ape_model.training.errors import RecipeError
from ape_model.training.finetuning.export import export_tuned
from ape_model.training.official.backbone import load_backbone
from ape_model.training.official.batches import OfficialBatches
from ape_model.training.official.optimizer import learnt_weights, make_optimizer
from ape_model.training.official.prompts import OfficialPrompts
from ape_model.training.official.recipe import read_official_recipe
from ape_model.training.official.records import read_row
from ape_model.training.official.step import OfficialStep
from ape_model.training.settings import EngineConfig
from ape_model.weights.import_official import VISION_FILE
from ape_model.weights.registry import find_model
from ape_model.weights.state_dict import load_weights
from ape_stream.devices import parse_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from ape_model.training.official.recipe import OfficialRecipe
    from ape_model.training.official.records import RowData
    from ape_model.training.train import TrainOptions

__all__ = ["OfficialRun", "build_run", "read_rows", "train_official"]


@dataclass(frozen=True, slots=True, eq=False)
class OfficialRun:
    """What a run consists of."""

    network: Ape
    """With its weights, on its device."""
    prompts: OfficialPrompts
    """Chosen for every batch."""
    engine: Engine
    """The loop."""


def build_run(
    recipe: OfficialRecipe,
    rows: Sequence[RowData],
    network: Ape,
    encode: Callable[[Sequence[str]], Tensor],
    folder: Path,
    report: Callable[[str], None],
) -> OfficialRun:
    """Put the parts of a run together.

    Args:
        recipe: Everything else that decides the run.
        rows: Its data sets.
        network: On its device; drop path, dropout and activation checkpointing are added in place.
        encode: Texts to (N, D) vectors.
        folder: For states and log.
        report: Called with lines of progress.
    """
    network.train()
    add_drop_path(network, recipe.drop_path)
    add_fusion_dropout(network, recipe.fusion_dropout)
    checkpoint_layers(network, **dict.fromkeys(recipe.checkpointing, True))
    weights = learnt_weights(network)
    prompts = OfficialPrompts(rows, encode, network.config.text_width)
    step = OfficialStep(network, prompts, recipe)
    on_gpu = next(iter(weights.values())).device.type == "cuda"
    config = EngineConfig(
        steps=recipe.schedule.steps,
        accumulate=recipe.accumulate,
        clip=recipe.optimizer.clip,
        precision=recipe.precision if on_gpu else "float32",
        compress=recipe.compress,
        seed=recipe.seed + _rank(),
        workers=recipe.workers,
        save_every=recipe.save_every,
        keep=recipe.keep,
        report_every=recipe.report_every,
    )
    optimizer = make_optimizer(weights, recipe.optimizer)
    learner = Learner(weights, optimizer, step, recipe.schedule.rate, memory=prompts)
    return OfficialRun(network, prompts, Engine(learner, config, folder, report))


def read_rows(
    recipe: OfficialRecipe, root: Path, report: Callable[[str], None]
) -> tuple[RowData, ...]:
    """Read the data sets of a recipe.

    Args:
        recipe: Its rows.
        root: Folder of all data sets.
        report: Called with a line about each.

    Raises:
        DataError: a file is missing or does not fit.
    """
    rows = []
    for row in recipe.data:
        data = read_row(row, root)
        asked = f"{len(data.names)} names" if row.prompts == "name" else "phrases"
        report(f"{row.name}: {len(data):,} images, {asked}")
        rows.append(data)
    return tuple(rows)


def train_official(options: TrainOptions, report: Callable[[str], None]) -> Path:
    """Train a released model by its recipe, from the last state in the folder where there is one.

    Args:
        options: Recipe; `data` is the folder of all data sets, `init` a model of the recipe's
            sizes with its text tower.
        report: Called with lines of progress.

    Returns:
        The network's file of weights; its folder is a model (`--model`, `--init`).

    Raises:
        ModelError: recipe, data or weights cannot be used, or the loss is NaN or infinite.
    """
    recipe = read_official_recipe(options.recipe, steps=options.steps, seed=options.seed)
    if options.data is None or options.init is None:
        raise RecipeError(
            f"{options.recipe.stem} needs --data, the folder of all data sets, and --init, a model"
            " with its text tower; --check needs neither"
        )
    files = find_model(options.init)
    if files.variant != recipe.model:
        raise RecipeError(
            f"{files.name} is a {files.variant}; {options.recipe.stem} trains another"
        )
    device = parse_device(options.device)
    rows = read_rows(recipe, options.data, report)
    tower_dtype = torch.float16 if device.type == "cuda" else torch.float32
    encoder = load_text_encoder(files, device, tower_dtype)
    torch.manual_seed(recipe.seed)  # of weights that no file holds
    network = Ape(PRESETS[recipe.model])
    if options.backbone is None:
        load_weights(network, files.vision)
    else:
        report(load_backbone(network.backbone.get_submodule("net"), options.backbone))
    run = build_run(recipe, rows, network.to(device), encoder.encode, options.out, report)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    batches = OfficialBatches(recipe, rows, network.config, rank=_rank(), processes=processes)
    engine = run.engine
    if engine.load():
        report(f"resuming at batch {engine.step:,}")
    engine.run(batches)
    if engine.is_main_process:
        names = {name for row in rows if row.row.prompts == "name" for name in row.names}
        facts = {"seed": recipe.seed, "steps": engine.step, "images": engine.images}
        export_tuned(options.out, network, engine.learner.trained.keys(), files, names, facts)
        report(f"wrote {options.out / VISION_FILE}; use it with --model {options.out}")
    return options.out / VISION_FILE


def _rank() -> int:
    """Of this process among those of torchrun."""
    return int(os.environ.get("RANK", "0"))
