"""A run as TOML: keys are fields of `LoopConfig`; `[[phase]]` and `[[data]]` tables follow."""

from __future__ import annotations

import logging
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ape_model.training.data.config import DataConfig
from ape_model.training.data.world_dataset import Phase
from ape_model.training.errors import RecipeError
from ape_model.training.nano.config import LoopConfig
from ape_stream.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Recipe", "read_recipe"]

_FORMER_KEYS: Final = {"stage": "phase", "strangers": "negative_words"}
_FORMER_DATA_KEYS: Final = {"pictures": "images"}
"""Keys that were renamed, with what they are called now: accepted for one release."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the result of a run, except for the images themselves."""

    loop: LoopConfig
    """Length and optimizer."""
    phases: tuple[Phase, ...]
    """Sizes of images and batches, ascending by first step, the first from step 0."""
    data: tuple[DataConfig, ...]
    """Data sets; the drawn world alone where the file has none."""


def read_recipe(path: Path, **changes: Any) -> Recipe:
    """Read a recipe.

    Args:
        path: A TOML file.
        **changes: Fields of `LoopConfig` that replace the file's where they are not None.

    Raises:
        RecipeError: the file cannot be read, or a key or value does not fit.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is not a recipe: {error}") from error
    # Phases and data sets are taken out first: what remains are the keys of `LoopConfig`.
    _rename_keys(table, _FORMER_KEYS, str(path))
    phases = [_phase(row, path, k) for k, row in enumerate(_rows(table, "phase", path))]
    data = [_data(row, path, k) for k, row in enumerate(_rows(table, "data", path))]
    # Before the table is checked, so that values of the command line are checked as well.
    table |= {key: value for key, value in changes.items() if value is not None}
    loop = read_table(LoopConfig, table, str(path), error=RecipeError)
    first = [phase.first for phase in phases]
    if not first or first[0] != 0 or first != sorted(set(first)):
        raise RecipeError(f"{path}: the first [[phase]] starts at step 0, and later ones after it")
    return Recipe(loop, tuple(phases), tuple(data) or (DataConfig(),))


def _rename_keys(table: dict[str, Any], former: Mapping[str, str], where: str) -> None:
    """Replace keys of before a renaming, with a warning."""
    for old, new in former.items():
        if old not in table:
            continue
        if new in table:
            raise RecipeError(f"{where}: {old} is the former name of {new}: keep {new} alone")
        _log.warning("%s: %s is called %s now; the former name will not be read", where, old, new)
        table[new] = table.pop(old)


def _rows(table: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """Take the tables of one name out of the file."""
    rows = table.pop(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RecipeError(f"{path}: {key} must be written [[{key}]]")
    return rows


def _phase(row: dict[str, Any], path: Path, number: int) -> Phase:
    where = f"{path}: phase {number}"
    phase = read_table(Phase, row, where, error=RecipeError)
    if not phase.canvases:
        raise RecipeError(f"{where}: canvases needs at least one table")
    return phase


def _data(row: dict[str, Any], path: Path, number: int) -> DataConfig:
    where = f"{path}: data {number}"
    _rename_keys(row, _FORMER_DATA_KEYS, where)
    return read_table(DataConfig, row, where, error=RecipeError)
