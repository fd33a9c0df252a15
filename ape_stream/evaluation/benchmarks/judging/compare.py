"""Scores of several folders next to each other, and next to published figures."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ape_stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Column", "Layout", "Row", "column_of", "published", "rendered", "rows_of"]

Layout = Literal["md", "csv", "json"]
"""How a table is written."""
_MAIN = ("box/AP", "mask/AP", "PQ", "mIoU", "box/AP50", "box/P@0.5", "mask/oIoU", "mask/mIoU")
"""The figures of a table: of each task, those that are among them."""
_SUITE_FIGURES = tuple(f"{name} {of}" for name in _MAIN for of in ("mean", "median"))


@dataclass(frozen=True, slots=True)
class Column:
    """The figures of one model."""

    name: str
    """The folder, or the name of the model."""
    figures: dict[tuple[str, str], float]
    """By task or suite, and by figure, in percent."""
    sources: dict[tuple[str, str], str]
    """Where each published figure is from."""
    note: str = ""
    """What a reader must know: the profile, or that the figures are no real ones."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of all models."""

    task: str
    """Name of the task or suite."""
    figure: str
    """Name of the figure."""
    values: tuple[float | None, ...]
    """One for each column; None where it has none."""


def column_of(out: Path) -> Column:
    """The scores of a folder.

    Raises:
        ConfigError: it holds none, or they cannot be read.
    """
    path = out / "scores.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        parts = {**table["tasks"], **table["suites"]}
        figures = {
            (name, figure): value
            for name, one in parts.items()
            for figure, value in one["figures"].items()
            if value is not None
        }
        limit = table["limit"]
        note = table["profile"] + ("" if limit is None else f", NOT REAL: {limit} images of each")
        return Column(str(out), figures, {}, note)
    except FileNotFoundError as error:
        raise ConfigError(f"{out} holds no scores: run `ape-stream eval score {out}`") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def published() -> list[Column]:
    """Figures that others have published, each with its source."""
    data = files("ape_stream.evaluation.benchmarks").joinpath("data/published.toml")
    columns: dict[str, Column] = {}
    for row in tomllib.loads(data.read_text(encoding="utf-8"))["figure"]:
        column = columns.setdefault(row["model"], Column(row["model"], {}, {}, "published"))
        key = (row["task"], row["figure"])
        column.figures[key] = float(row["value"])
        column.sources[key] = row["source"]
    return list(columns.values())


def rows_of(columns: Sequence[Column], ours: int) -> list[Row]:
    """The main figures of the tasks that our columns have, and of suites.

    Args:
        columns: Ours first.
        ours: How many are ours: a figure that none of them has makes no row.
    """
    keys = dict.fromkeys(key for column in columns[:ours] for key in column.figures)
    shown = [key for key in keys if key[1] in (*_MAIN, *_SUITE_FIGURES)]
    return [
        Row(task, figure, tuple(column.figures.get((task, figure)) for column in columns))
        for task, figure in sorted(shown, key=lambda key: (key[0], _order(key[1])))
    ]


def _order(figure: str) -> int:
    return (*_MAIN, *_SUITE_FIGURES).index(figure)


def rendered(columns: Sequence[Column], rows: Sequence[Row], layout: Layout) -> str:
    """The table as text; published columns without a figure in it are left out."""
    kept = [k for k in range(len(columns)) if any(row.values[k] is not None for row in rows)]
    if layout == "json":
        return _as_json(columns, rows, kept)
    heads = ["task", "figure", *(_head(columns[k]) for k in kept)]
    cells = [[row.task, row.figure, *(_cell(row.values, k) for k in kept)] for row in rows]
    if layout == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([heads, *cells])
        return text.getvalue()
    lines = [heads, ["---", "---", *("---:" for _ in kept)], *cells]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return table + _sources(columns, rows, kept)


def _head(column: Column) -> str:
    return f"{column.name} ({column.note})" if column.note else column.name


def _cell(values: Sequence[float | None], k: int) -> str:
    """A figure; from the second column on with its distance from the first one."""
    value, first = values[k], values[0]
    if value is None:
        return ""
    if not k or first is None:
        return f"{value:.1f}"
    return f"{value:.1f} ({value - first:+.1f})"


def _sources(columns: Sequence[Column], rows: Iterable[Row], kept: Sequence[int]) -> str:
    """A line for each source of the figures that are shown."""
    used = {
        (columns[k].name, columns[k].sources[row.task, row.figure])
        for row in rows
        for k in kept
        if row.values[k] is not None and (row.task, row.figure) in columns[k].sources
    }
    return "".join(f"\n- {name}: {source}" for name, source in sorted(used)) + "\n" * bool(used)


def _as_json(columns: Sequence[Column], rows: Sequence[Row], kept: Sequence[int]) -> str:
    table: list[dict[str, Any]] = [
        {
            "task": row.task,
            "figure": row.figure,
            "values": {columns[k].name: row.values[k] for k in kept if row.values[k] is not None},
            "sources": {
                columns[k].name: columns[k].sources[row.task, row.figure]
                for k in kept
                if (row.task, row.figure) in columns[k].sources
            },
        }
        for row in rows
    ]
    return json.dumps(table) + "\n"
