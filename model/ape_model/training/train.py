"""A whole run of nano: data, prompts and network into the loop, and its result to a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ape_model.config import NANO
from ape_model.loading import load_text_encoder
from ape_model.network.nano import build_nano
from ape_model.training.averaging import AveragedWeights
from ape_model.training.data.config import DataConfig
from ape_model.training.engine import Engine
from ape_model.training.errors import RecipeError
from ape_model.training.export import export_model, recipe_hash
from ape_model.training.nano.learner import make_learner
from ape_model.training.recipe import read_recipe
from ape_model.training.task import build_task
from ape_model.training.text_tower.check import check_diversity, measure_diversity
from ape_model.training.validate import validate
from ape_model.weights.import_official import VISION_FILE
from ape_model.weights.registry import find_model
from ape_model.weights.state_dict import load_weights
from ape_model.world import World
from ape_stream.devices import parse_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from ape_model.network.ape import Ape
    from ape_model.training.recipe import Recipe
    from ape_model.training.task import Task, ValidationSet
    from ape_model.training.text_tower.check import EmbeddingDiversity
    from ape_model.weights.registry import ModelFiles

__all__ = ["TrainOptions", "train"]


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The options of `ape-stream train`."""

    recipe: Path
    """A TOML file."""
    out: Path
    """Folder for states, log and weights."""
    data: Path | None = None
    """A COCO file; None: the data sets of the recipe."""
    images: Path | None = None
    """Folder of the images of `data`; None: that of the file."""
    init: str | None = None
    """Model to start from; None: nano with `data`, else random weights."""
    validation: Path | None = None
    """Data set that the score is taken on; None: what the recipe says."""
    steps: int | None = None
    """Number of steps; None: the recipe's."""
    seed: int | None = None
    """Seed; None: the recipe's."""
    device: str = "auto"
    """Device of the network: auto, cpu or cuda."""
    backbone: Path | None = None
    """Pre-trained weights of the backbone, with a recipe of a released model; the network's other
    weights are random then, and `init` gives the text tower alone."""


def train(options: TrainOptions, report: Callable[[str], None]) -> Path:
    """Train to the recipe's last step, from the last state in the folder where there is one.

    Args:
        options: Recipe, data and folders.
        report: Called with lines of progress.

    Returns:
        The network's file of weights; its folder is a model (`--model`, `--init`).

    Raises:
        ModelError: recipe, data or weights cannot be used, or the loss is NaN or infinite.
    """
    recipe = read_recipe(options.recipe, steps=options.steps, seed=options.seed)
    recipe = _with_data(recipe, options)
    if options.data is not None and options.init is None:
        options = replace(options, init="nano")
    device = parse_device(options.device)
    files, text = _initial_files(options, recipe)
    encode = load_text_encoder(files, torch.device("cpu"), torch.float32).encode
    diversity = _check_tower(encode, report)
    task = build_task(recipe, options.recipe.parent, encode, text, report)
    torch.manual_seed(recipe.loop.seed)  # of the network's initial weights
    model = build_nano(NANO)
    if options.init is not None:
        load_weights(model, files.vision)
    average = AveragedWeights(model.to(device), recipe.loop.ema)
    learner = make_learner(model, task.prompt_sampler, recipe.loop, average)
    engine = Engine(learner, recipe.loop, options.out, report)
    if engine.load():
        report(f"resuming at step {engine.step}")
    elif engine.is_main_process:
        rank, cosine = diversity.effective_rank, diversity.nearest_cosine
        engine.log({"step": 0, "text_rank": rank, "text_cosine": cosine})
    scores = _Scores(task.validation_sets, average, report)
    if options.init is not None and engine.is_main_process:
        scores.measure_initial(files)
    engine.run(task.data, scores.measure)
    if engine.is_main_process:
        scores.compare()
        facts = {"seed": recipe.loop.seed, "steps": engine.step, "images": engine.images}
        facts |= {} if task.canvas is None else {"canvas": task.canvas}
        label = facts | {"recipe": recipe_hash(recipe)}
        _export(model, average, task, options, files, text, label)
        report(f"wrote {options.out / VISION_FILE}; use it with --model {options.out}")
    return options.out / VISION_FILE


def _initial_files(options: TrainOptions, recipe: Recipe) -> tuple[ModelFiles, Path]:
    """Return the model that the run starts from, and the file of its text tower."""
    files = find_model(options.init or "nano")
    if recipe.loop.text:
        files = replace(files, text=options.recipe.parent / recipe.loop.text)
    if files.variant != "nano" or files.text is None:
        raise RecipeError(
            f"{files.name} is not a nano with its text tower: only those can be trained"
        )
    return files, files.text


def _export(
    model: Ape,
    average: AveragedWeights,
    task: Task,
    options: TrainOptions,
    files: ModelFiles,
    text: Path,
    facts: Mapping[str, object],
) -> None:
    """Write the averaged weights as a model; it knows the names of the one it started from too."""
    names, stuff = set(task.words), set(task.stuff)
    if options.init is not None:
        names |= files.vocabulary
        stuff |= files.stuff
    export_model(options.out, model, average.weights, text, names, stuff, facts)


def _with_data(recipe: Recipe, options: TrainOptions) -> Recipe:
    """Put the data set of the command line into the recipe's table that is left open for it."""
    open_rows = [row for row in recipe.data if not row.source]
    if options.data is None:
        if options.images is not None:
            raise RecipeError("--images is the folder of the images of --data: give both")
        if options.validation is not None:
            raise RecipeError("--validation is the score of --data: give both")
        if open_rows:
            raise RecipeError(f"{options.recipe} has a [[data]] table without source: give --data")
        return recipe
    rows = (DataConfig(source=""),) if recipe.data == (DataConfig(),) else recipe.data
    if sum(not row.source for row in rows) != 1:
        raise RecipeError(
            f"{options.recipe} has [[data]] tables of its own: leave --data out, or one source"
        )
    return replace(recipe, data=tuple(row if row.source else _filled(row, options) for row in rows))


def _filled(row: DataConfig, options: TrainOptions) -> DataConfig:
    """A table without source as that of the command line's images."""
    return replace(
        row,
        source=_absolute(options.data),
        images=_absolute(options.images) or row.images,
        validation=_absolute(options.validation) or row.validation,
    )


def _absolute(path: Path | None) -> str:
    return "" if path is None else str(path.absolute())


def _check_tower(
    encode: Callable[[Sequence[str]], Tensor], report: Callable[[str], None]
) -> EmbeddingDiversity:
    """Measure and report the text tower; refuse one on which no network can be trained."""
    diversity = measure_diversity(encode([name.casefold() for name in World().names]))
    report(f"text tower: {diversity}")
    check_diversity(diversity)
    return diversity


class _Scores:
    """Validates the averaged weights on every data set with names; reports and logs."""

    def __init__(
        self,
        sets: Sequence[ValidationSet],
        average: AveragedWeights,
        report: Callable[[str], None],
    ) -> None:
        self.sets, self.average, self.report = sets, average, report
        self.before: list[dict[str, float]] = []
        self.last: list[dict[str, float]] = []

    def measure_initial(self, files: ModelFiles) -> None:
        """Validate the model that the run starts from, also where the run resumes."""
        network = build_nano(NANO)
        load_weights(network, files.vision)
        self.before = self._values(network)
        for one, found in zip(self.sets, self.before, strict=True):
            self.report(f"before, {_line(one, found)}")

    def measure(self, engine: Engine) -> None:
        """Validate what the run has learnt so far."""
        # A network of its own: the one that is trained keeps its weights, mode and device.
        network = build_nano(NANO)
        averaged = self.average.weights
        network.load_state_dict({key: value.cpu() for key, value in averaged.items()})
        self.last = self._values(network)
        for one, found in zip(self.sets, self.last, strict=True):
            self.report(f"step {engine.step}, {_line(one, found)}")
            name = {} if len(self.sets) == 1 else {"source": one.source}
            engine.log({"step": engine.step, **name, **found})

    def compare(self) -> None:
        """Report the scores before and after the run."""
        for one, was, now in zip(self.sets, self.before, self.last, strict=False):
            changes = ", ".join(f"{key} {was[key]:.3f} -> {now[key]:.3f}" for key in now)
            self.report(f"before -> after, {Path(one.source).name}: {changes}")

    def _values(self, network: Ape) -> list[dict[str, float]]:
        network.eval()
        return [validate(network, one.names, one.things, one.examples) for one in self.sets]


def _line(one: ValidationSet, found: dict[str, float]) -> str:
    return f"{Path(one.source).name}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items())
