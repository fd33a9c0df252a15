"""A run as TOML: every key is a field of `LoopConfig`, and the stages."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ape_model.training.errors import RecipeError
from ape_model.training.loop import LoopConfig
from ape_model.training.scenes import Canvas, Stage

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Recipe", "read_recipe"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the outcome of a run, but its data."""

    loop: LoopConfig
    """How long and how fast."""
    stages: tuple[Stage, ...]
    """Sizes of pictures and batches, ascending by first step."""


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
        stages = table.pop("stage", [])
        table |= {key: value for key, value in changes.items() if value is not None}
        return Recipe(_loop(table, path), tuple(_stage(s, path) for s in stages))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is no recipe: {error}") from error


def _loop(table: dict[str, Any], path: Path) -> LoopConfig:
    known = {f.name for f in fields(LoopConfig)}
    _refuse_unknown(set(table), known | {"stage"}, path)
    if not isinstance(table.get("steps"), int) or table["steps"] < 1:
        raise RecipeError(f"{path}: steps is a whole number of at least 1")
    return LoopConfig(**table)


def _stage(table: dict[str, Any], path: Path) -> Stage:
    _refuse_unknown(set(table), {"first", "canvases", "sentence_share"}, path)
    try:
        canvases = tuple(Canvas(**canvas) for canvas in table["canvases"])
        stage = Stage(table["first"], canvases, table["sentence_share"])
    except (KeyError, TypeError) as error:
        raise RecipeError(f"{path}: a stage is not complete: {error}") from error
    odd = [c for c in canvases if (c.height % 32 and c.height % 16) or c.width % 16 or c.batch < 1]
    if odd or not canvases:
        raise RecipeError(f"{path}: sides of a canvas are multiples of 32, batch at least 1: {odd}")
    return stage


def _refuse_unknown(given: set[str], known: set[str], path: Path) -> None:
    strange = sorted(given - known)
    if strange:
        raise RecipeError(
            f"{path}: there is no key {strange[0]!r}; there are {', '.join(sorted(known))}"
        )
