"""A run as TOML: keys are fields of `LoopConfig`; `[[stage]]` and `[[data]]` tables follow."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ape_model.training.data.config import DataConfig
from ape_model.training.data.world_dataset import Stage
from ape_model.training.errors import RecipeError
from ape_model.training.trainer import LoopConfig
from ape_stream.tables import read_table

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Recipe", "read_recipe"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the outcome of a run, but the pictures themselves."""

    loop: LoopConfig
    """How long and how fast."""
    stages: tuple[Stage, ...]
    """Sizes of pictures and batches, ascending by first step, the first from step 0."""
    data: tuple[DataConfig, ...]
    """Data sets; the drawn world alone where the file names none."""


def read_recipe(path: Path, **changes: Any) -> Recipe:
    """Read a recipe.

    Args:
        path: a TOML file.
        **changes: fields of `LoopConfig` that replace the file's where they are not None.

    Raises:
        RecipeError: the file cannot be read, or a key or value does not fit.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is no recipe: {error}") from error
    stages = [_stage(row, path, k) for k, row in enumerate(_rows(table, "stage", path))]
    rows = enumerate(_rows(table, "data", path))
    data = [read_table(DataConfig, row, f"{path}: data {k}", error=RecipeError) for k, row in rows]
    table |= {key: value for key, value in changes.items() if value is not None}
    loop = read_table(LoopConfig, table, str(path), error=RecipeError)
    first = [stage.first for stage in stages]
    if not first or first[0] != 0 or first != sorted(set(first)):
        raise RecipeError(f"{path}: the first [[stage]] begins at step 0, and later ones after it")
    return Recipe(loop, tuple(stages), tuple(data) or (DataConfig(),))


def _rows(table: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """Take the tables of one name out of the file."""
    rows = table.pop(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RecipeError(f"{path}: {key} is written [[{key}]]")
    return rows


def _stage(row: dict[str, Any], path: Path, number: int) -> Stage:
    where = f"{path}: stage {number}"
    stage = read_table(Stage, row, where, error=RecipeError)
    if not stage.canvases:
        raise RecipeError(f"{where}: canvases has at least one table")
    return stage
