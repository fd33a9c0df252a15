"""`ape-stream eval list`, `check`, ...: the benchmarks as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ape_stream.evaluation.benchmarks.places import Places, root_of
from ape_stream.evaluation.benchmarks.registry import select_tasks

__all__ = ["add_to"]

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
