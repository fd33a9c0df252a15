"""A run as TOML: keys are fields of `LoopConfig`; `[[stage]]` and `[[data]]` tables follow."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from ape_model.training.data.config import DataConfig
from ape_model.training.data.world_dataset import Canvas, Stage
from ape_model.training.errors import RecipeError
from ape_model.training.trainer import LoopConfig

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Recipe", "read_recipe"]

Config = TypeVar("Config", LoopConfig, Stage, Canvas, DataConfig)


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
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is no recipe: {error}") from error
    stages = [_stage(row, path, k) for k, row in enumerate(_rows(table, "stage", path))]
    rows = enumerate(_rows(table, "data", path))
    data = [_build(DataConfig, row, f"{path}: data {k}") for k, row in rows]
    table |= {key: value for key, value in changes.items() if value is not None}
    loop = _build(LoopConfig, table, str(path), ("stage", "data"))
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
    canvases = row.get("canvases", [])
    if not isinstance(canvases, list) or not all(isinstance(c, dict) for c in canvases):
        raise RecipeError(f"{where}: canvases is a list of tables")
    row = row | {"canvases": tuple(_build(Canvas, canvas, where) for canvas in canvases)}
    if not canvases:
        raise RecipeError(f"{where}: canvases has at least one table")
    return _build(Stage, row, where)


def _build(
    kind: type[Config], table: dict[str, Any], where: str, also: tuple[str, ...] = ()
) -> Config:
    """Make a dataclass of a table whose keys and types must be those of its fields."""
    hints: dict[str, Any] = get_type_hints(kind)
    strange = sorted(set(table) - set(hints))
    if strange:
        known = ", ".join(sorted([*hints, *also]))
        raise RecipeError(f"{where}: there is no key {strange[0]!r}; there are {known}")
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.name not in table]
    if needed:
        raise RecipeError(f"{where}: {needed[0]} is missing")
    values = {key: _typed(value, hints[key], f"{where}: {key}") for key, value in table.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Check a value against a field's type: a number, a text, a truth value, a tuple of them."""
    if isinstance(value, tuple):  # canvases, checked already
        return value
    parts = get_args(hint)
    if parts:
        if not isinstance(value, list) or len(value) != len(parts):
            raise RecipeError(f"{where} is a list of {len(parts)} values, not {value!r}")
        return tuple(_typed(v, part, where) for v, part in zip(value, parts, strict=True))
    kinds = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}[hint]
    if not isinstance(value, kinds) or isinstance(value, bool) is not (hint is bool):
        what = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}[
            hint
        ]
        raise RecipeError(f"{where} is {what}, not {value!r}")
    return value
