"""`ape-stream eval score`, `table`, `export`: what is made of predictions, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from ape_stream.errors import ConfigError, UsageError
from ape_stream.evaluation.benchmarks.compare import FORMATS, compared, read_run
from ape_stream.evaluation.benchmarks.places import root_of
from ape_stream.evaluation.benchmarks.published import published as published_figures
from ape_stream.evaluation.benchmarks.registry import all_tasks, select_tasks

if TYPE_CHECKING:
    from ape_stream.evaluation.benchmarks.judging.store import Store
    from ape_stream.evaluation.benchmarks.task import Task

__all__ = ["JSON", "ROOT", "RUN", "chosen_tasks", "export_task", "score_run", "show_table"]

RUN = Annotated[Path, typer.Argument(help="Folder of predictions, made by `eval run`.")]
ROOT = Annotated[
    Path | None,
    typer.Option(help="Folder of all data sets. Default: $DETECTRON2_DATASETS, else datasets."),
]
JSON = Annotated[bool, typer.Option("--json", help="One JSON line for machines.")]


def score_run(
    run: RUN,
    task: Annotated[
        list[str] | None, typer.Option(help="Name, group or pattern; several times. Default: all.")
    ] = None,
    root: ROOT = None,
    *,
    as_json: JSON = False,
) -> None:
    """Score predictions on the CPU, and write scores.json into their folder."""
    from ape_stream.evaluation.benchmarks.judging.score import (  # noqa: PLC0415 (heavy)
        score,
        write_scores,
    )
    from ape_stream.evaluation.benchmarks.judging.store import Store  # noqa: PLC0415 (the same)

    store = Store(run, root_of(root))
    scores = {}
    for one in chosen_tasks(store, task or []):
        scores[one.name] = score(store.open(one))
        for note in scores[one.name].notes:
            typer.echo(f"{one.name}: {note}", err=True)
    table = write_scores(run, store, scores)
    if as_json:
        typer.echo(json.dumps(table))
    else:
        Console(markup=False, emoji=False).print(_shown(table))


def chosen_tasks(store: Store, wanted: list[str]) -> list[Task]:
    """The wanted tasks that there are predictions for; all of them where none is named."""
    kept = store.tasks()
    if not wanted:
        # Those whose parts are all there; of others, a limit or a kill left some open.
        ready = [task for task in kept if not store.missing(task)]
        for task in kept:
            if task not in ready:
                typer.echo(f"{task.name}: {store.missing(task)} images are open", err=True)
        if not ready:
            raise ConfigError("no task is predicted to its end: run the same command again")
        return ready
    return [task for task in select_tasks(wanted) if task in kept] or select_tasks(wanted)


def _shown(table: dict[str, Any]) -> Table:
    title = f"{table['profile']} profile"
    if table["limit"] is not None:
        title += f": NOT REAL FIGURES, {table['limit']} images of a task"
    shown = Table("task", "figures, percent", title=title)
    for name, one in {**table["tasks"], **table["suites"]}.items():
        figures = [
            f"{figure} {value:.1f}" for figure, value in one["figures"].items() if value is not None
        ]
        shown.add_row(name, "  ".join(figures) or "nothing to judge")
    return shown


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


def export_task(
    run: RUN,
    task: Annotated[str, typer.Argument(help="Name of a task with regions.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file, such as lvis.json.")],
    root: ROOT = None,
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: JSON = False,
) -> None:
    """Write the regions of a task as the tools of COCO, LVIS and D3 read them."""
    from ape_stream.evaluation.benchmarks.judging.export import export  # noqa: PLC0415 (heavy)
    from ape_stream.evaluation.benchmarks.judging.store import Store  # noqa: PLC0415 (the same)

    if task not in all_tasks():
        select_tasks([task])  # raises where it is no group either
        raise UsageError(f"{task!r} is a group: name one task")
    count = export(Store(run, root_of(root)).open(all_tasks()[task]), output, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps({"file": str(output), "detections": count}))
    else:
        typer.echo(f"{count} detections in {output}")
