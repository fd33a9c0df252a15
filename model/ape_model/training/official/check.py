"""`ape-stream train --check`: a recipe proved in a minute, on tiny copies of its data sets.

Everything but the sizes is the recipe's: rows, prompts, loss terms, sampling, augmentation, layer
rates, accumulation, drop path, activation checkpointing.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zlib import crc32

import torch

from ape_model.config import PRESETS
from ape_model.network.ape import Ape
from ape_model.training.errors import TrainingError
from ape_model.training.official.batches import OfficialBatches
from ape_model.training.official.miniature import write_miniature_data
from ape_model.training.official.prompts import OfficialPrompts
from ape_model.training.official.recipe import Schedule
from ape_model.training.official.run import build_run, read_rows
from ape_model.training.official.step import OfficialStep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ape_model.config import ApeConfig
    from ape_model.training.data.batch import Batch
    from ape_model.training.official.recipe import OfficialRecipe
    from ape_model.training.official.records import RowData
    from ape_model.training.official.run import OfficialRun

__all__ = ["RowCheck", "check_recipe", "encode_at_random", "shrunk_config", "shrunk_recipe"]

ROUNDS: Final = 6
"""Batches of each data set."""
_CANVAS: Final = 64
_BATCH: Final = 2
_RATE: Final = 20.0
"""Learning rate over the recipe's: a tiny random network learns in few steps."""


@dataclass(frozen=True, slots=True)
class RowCheck:
    """What a check found out about a data set."""

    name: str
    """Of the data set."""
    terms: int
    """Loss terms of a batch."""
    before: float
    """Loss of a batch before anything was learnt."""
    after: float
    """Loss of the same batch at the end."""


def check_recipe(
    recipe: OfficialRecipe, report: Callable[[str], None], rounds: int = ROUNDS
) -> list[RowCheck]:
    """Train a tiny network on tiny copies of a recipe's data sets, unbroken and resumed.

    Args:
        recipe: To check.
        report: Called with a line about every data set and the result.
        rounds: Batches of each data set.

    Raises:
        TrainingError: a loss is NaN or infinite or does not fall, or the resumed run differs.
    """
    small = shrunk_recipe(recipe, rounds)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_miniature_data(small, root / "data")
        rows = read_rows(small, root / "data", lambda _: None)
        return _check(small, rows, root, report)


def _check(
    recipe: OfficialRecipe, rows: Sequence[RowData], root: Path, report: Callable[[str], None]
) -> list[RowCheck]:
    steps = recipe.schedule.steps
    report(f"{len(rows)} data sets of {recipe.model}, tiny: {steps} batches, half of them again")
    data = _Rounds(recipe, rows)
    torch.manual_seed(recipe.seed)
    whole = _run(recipe, rows, root / "whole")
    before = _measure(recipe, rows, whole.network, data)
    # Half of the run, a state as at a kill, and the other half.
    half = steps // 2 // recipe.accumulate * recipe.accumulate
    for step in range(half):
        whole.engine.advance(data[step])
    whole.engine.save()
    shutil.copytree(root / "whole", root / "cut")
    for step in range(half, steps):
        whole.engine.advance(data[step])
    after = _measure(recipe, rows, whole.network, data)
    found = [
        RowCheck(row.name, len(first), sum(first.values()), sum(last.values()))
        for row, first, last in zip(recipe.data, before, after, strict=True)
    ]
    for one in found:
        report(f"{one.name}: {one.terms} losses, {one.before:.2f} -> {one.after:.2f}")
    wrong = [one.name for one in found if not one.after < one.before]
    if wrong:
        raise TrainingError(f"the loss does not fall on {', '.join(wrong)}")
    torch.manual_seed(recipe.seed + 1)  # other weights, which the state replaces
    cut = _run(recipe, rows, root / "cut")
    cut.engine.load()
    for step in range(cut.engine.step, steps):
        cut.engine.advance(data[step])
    if not _same(whole, cut):
        raise TrainingError("the resumed run differs from the unbroken one")
    report(f"resumed at batch {half} of {steps}: equal to the unbroken run, bit for bit")
    return found


class _Rounds:
    """Every data set in turn, so that a short run has batches of all."""

    def __init__(self, recipe: OfficialRecipe, rows: Sequence[RowData]) -> None:
        self.batches = OfficialBatches(recipe, rows, shrunk_config(PRESETS[recipe.model]))
        self.rows = len(rows)

    def __getitem__(self, step: int) -> Batch:
        return self.batches.batch(step % self.rows, step // self.rows)


def _run(recipe: OfficialRecipe, rows: Sequence[RowData], folder: Path) -> OfficialRun:
    config = shrunk_config(PRESETS[recipe.model])
    return build_run(
        recipe, rows, Ape(config), encode_at_random(config.text_width), folder, lambda _: None
    )


@torch.no_grad()
def _measure(
    recipe: OfficialRecipe, rows: Sequence[RowData], network: Ape, data: _Rounds
) -> list[dict[str, float]]:
    """The losses of the first batch of each data set, with the same chance at every call."""
    encode = encode_at_random(network.config.text_width)
    found = []
    network.eval()  # no drop path
    for row in range(len(rows)):
        torch.manual_seed(recipe.seed)
        step = OfficialStep(
            network, OfficialPrompts(rows, encode, network.config.text_width), recipe
        )
        losses = {name: value.item() for name, value in step(data[row], row).items()}
        for name, value in losses.items():
            if not math.isfinite(value):
                raise TrainingError(f"the loss {name} is NaN or infinite")
        found.append(losses)
    network.train()
    return found


def _same(first: OfficialRun, second: OfficialRun) -> bool:
    """Whether two runs ended with the same weights and phrases."""
    own, other = first.network.state_dict(), second.network.state_dict()
    weights = all(torch.equal(own[key], other[key]) for key in own)
    queues = zip(first.prompts.state(), second.prompts.state(), strict=True)
    return weights and all(torch.equal(a, b) for a, b in queues)


def shrunk_config(config: ApeConfig) -> ApeConfig:
    """The habits of a released model at a size for a check on a CPU."""
    vit = replace(
        config.backbone,
        width=32, depth=2, heads=2, window=2, window_blocks=(0,), pretrain_grid=4,
    )  # fmt: skip
    return replace(
        config,
        backbone=vit, canvas=_CANVAS, hidden=32, heads=4, points=2, ffn=32, encoder_layers=1,
        decoder_layers=2, queries=24, fusion_width=32, fusion_heads=4, text_width=32,
        pre_nms_topk=16, norm_groups=8,
    )  # fmt: skip


def shrunk_recipe(recipe: OfficialRecipe, rounds: int) -> OfficialRecipe:
    """A recipe at a size for a check: images and batches are small, the run is short."""
    steps = rounds * len(recipe.data)
    optimizer = replace(recipe.optimizer, learning_rate=_RATE * recipe.optimizer.learning_rate)
    augmentation = replace(
        recipe.augmentation, canvas=_CANVAS, scale=(0.6, 1.0), scale_with_crop=(0.6, 2.0)
    )
    return replace(
        recipe,
        schedule=Schedule(steps, drop_at=steps - 1, warm_up=1),
        optimizer=optimizer,
        augmentation=augmentation,
        batch=_BATCH,
        workers=0,
    )


def encode_at_random(width: int) -> Callable[[Sequence[str]], Tensor]:
    """A stand-in for a text tower: each text has a random vector, the same at every call."""

    def encode(texts: Sequence[str]) -> Tensor:
        generators = (torch.Generator().manual_seed(crc32(text.encode())) for text in texts)
        rows = [torch.randn(width, generator=generator) for generator in generators]
        return torch.stack(rows) if rows else torch.zeros(0, width)

    return encode
