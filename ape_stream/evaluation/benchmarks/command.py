"""`ape-stream eval list`, `check`, ...: the benchmarks as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from ape_stream.evaluation.benchmarks.compare import FORMATS, compared, read_run
from ape_stream.evaluation.benchmarks.places import Places, root_of
from ape_stream.evaluation.benchmarks.published import published as published_figures
from ape_stream.evaluation.benchmarks.registry import select_tasks

__all__ = ["add_to", "list_tasks", "show_table"]

TASKS = Annotated[
    list[str] | None,
    typer.Argument(help="Names, groups or patterns: lvis/val, rf100, 'seginw/*'. Default: all."),
]
ROOT = Annotated[
    Path | None,
    typer.Option(help="Folder of all data sets. Default: $DETECTRON2_DATASETS, else datasets."),
]
PROFILE = Annotated[
    str, typer.Option(help="honest: all data sets alike. official: as the released evaluation.")
]
JSON = Annotated[bool, typer.Option("--json", help="One JSON line for machines.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `ape-stream eval`."""
    app.command("list")(list_tasks)
    app.command("table")(show_table)


def list_tasks(tasks: TASKS = None, root: ROOT = None, *, as_json: JSON = False) -> None:
    """List the benchmarks, and which of them are on this disk."""
    where = root_of(root)
    rows = [(task, Places(where, task).missing()) for task in select_tasks(tasks or [])]
    if as_json:
        described = [
            {"task": task.name, "groups": task.groups, "scorer": task.scorer, "mode": task.mode}
            | {"missing": [str(one.path) for one in missing]}
            for task, missing in rows
        ]
        typer.echo(json.dumps({"root": str(where), "tasks": described}))
        return
    table = Table("task", "groups", "scored by", "on disk", title=f"benchmarks in {where}")
    for task, missing in rows:
        state = "yes" if not missing else f"no {missing[0].what}"
        table.add_row(task.name, " ".join(task.groups), task.scorer, state)
    Console(markup=False, emoji=False).print(table)
    ready = sum(not missing for _, missing in rows)
    typer.echo(f"{len(rows)} tasks, {ready} on this disk", err=True)


def show_table(
    folders: Annotated[list[Path], typer.Argument(help="Folders with scores; the first is ours.")],
    form: Annotated[
        Literal["md", "csv", "json"], typer.Option("--format", help="md, csv or json.")
    ] = "md",
    *,
    published: Annotated[
        bool, typer.Option(help="Also figures of APE and its peers, each with its source.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Show the scores of several folders next to each other, and next to published ones."""
    runs = [read_run(folder) for folder in folders]
    entries = compared(runs, published_figures() if published else ())
    typer.echo(FORMATS["json" if as_json else form](runs, entries), nl=False)
