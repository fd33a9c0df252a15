"""`ape-stream eval list`, `check`, `run`, `miniature`: the benchmarks as commands."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from ape_stream.errors import StoppedError, UsageError
from ape_stream.evaluation.benchmarks.browse import browse_run
from ape_stream.evaluation.benchmarks.places import Places, root_of
from ape_stream.evaluation.benchmarks.registry import select_tasks
from ape_stream.evaluation.benchmarks.results import export_task, score_run, show_table
from ape_stream.signals import on_first_signal

if TYPE_CHECKING:
    from ape_stream.batch.state import ClipState, Progress
    from ape_stream.batch.workers import EngineKind
    from ape_stream.evaluation.benchmarks.prediction.run import RunOptions
    from ape_stream.evaluation.benchmarks.task import Profile, Task

__all__ = ["add_to", "check_tasks", "list_tasks", "run_tasks", "write_miniature"]

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
    app.command("check")(check_tasks)
    app.command("run")(run_tasks)
    app.command("score")(score_run)
    app.command("table")(show_table)
    app.command("browse")(browse_run)
    app.command("export")(export_task)
    app.command("miniature")(write_miniature)


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


def check_tasks(
    tasks: TASKS = None,
    root: ROOT = None,
    profile: PROFILE = "honest",
    *,
    as_json: JSON = False,
) -> None:
    """Check the files of benchmarks before a model runs: exit code 1 where something is wrong."""
    from ape_stream.evaluation.benchmarks.check import check  # noqa: PLC0415 (OpenCV, SciPy)

    where, chosen = root_of(root), _profile(profile)
    found = [check(task, where, chosen) for task in select_tasks(tasks or [])]
    if as_json:
        rows = [
            {"task": one.task, "images": one.images, "classes": one.classes}
            | {"problems": one.problems}
            for one in found
        ]
        typer.echo(json.dumps({"root": str(where), "profile": chosen, "tasks": rows}))
    else:
        for one in found:
            good = f"{one.task}: {one.images} images, {one.classes} classes"
            typer.echo("\n".join(one.problems) or good)
    if any(one.problems for one in found):
        raise typer.Exit(1)


def run_tasks(  # noqa: PLR0913 (options of a command)
    tasks: TASKS = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the predictions; a later run goes on.")],
    root: ROOT = None,
    model: Annotated[
        str, typer.Option(help="Model to judge, as nano or owlv2:NAME; truth: the annotations.")
    ] = "nano",
    perceiver: Annotated[
        str | None,
        typer.Option(help="Plugin that runs it. Default: ape, or what --model begins with."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the plugin, NAME=VALUE; several times.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    profile: PROFILE = "honest",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most images of a task: figures are no real ones.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Share of this machine, as 3/8; all write to one folder.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Workers with a model.")] = 1,
    engine: Annotated[str, typer.Option(help="processes, or ray for several machines.")] = (
        "processes"
    ),
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster.")] = None,
    available: Annotated[
        bool, typer.Option("--available", help="Leave out tasks whose files are missing.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Predict benchmarks once into a folder; the same command goes on after any interruption."""
    from ape_stream.batch.workers import Engine  # noqa: PLC0415 (heavy)
    from ape_stream.evaluation.benchmarks.prediction.run import (  # noqa: PLC0415 (heavy)
        Part,
        RunOptions,
    )

    where, chosen = root_of(root), _profile(profile)
    plugin, options = _model(model, perceiver, option or [], device)
    if plugin == "truth":
        options = {"root": str(where.absolute()), "profile": chosen}
    selected = _selected(tasks or [], where, chosen, available=available)
    if limit is not None:
        typer.echo(f"--limit {limit}: NOT A REAL FIGURE will come of this", err=True)
    given = RunOptions(
        tasks=selected,
        root=where,
        out=out,
        model=plugin,
        options=options,
        profile=chosen,
        limit=limit,
        part=None if shard is None else Part.parse(shard),
        # An image of a large model on a CPU takes its time.
        engine=Engine(jobs, stall_s=600.0, kind=cast("EngineKind", engine), address=address),
    )
    _run(given, as_json=as_json)


def _profile(text: str) -> Profile:
    if text not in {"official", "honest"}:
        raise UsageError(f"--profile is official or honest, not {text!r}")
    return cast("Profile", text)


def _model(
    model: str, perceiver: str | None, given: list[str], device: str | None
) -> tuple[str, dict[str, Any]]:
    """The plugin and its options."""
    from ape_stream.plugins import PERCEIVER, perceiver_of  # noqa: PLC0415 (only here)

    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--option is NAME=VALUE, not {text!r}")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value  # a text without quotes
    if device is not None:
        options["device"] = device
    if perceiver is not None:
        return perceiver, {"model": model, **options}
    plugin, own = perceiver_of(model)
    return plugin or PERCEIVER, {**own, **options}


def _selected(names: list[str], root: Path, profile: Profile, *, available: bool) -> list[Task]:
    tasks = select_tasks(names)
    if not available:
        return tasks
    ready = [task for task in tasks if not Places(root, task.with_profile(profile)).missing()]
    if not ready:
        raise UsageError(f"none of {len(tasks)} tasks is in {root} (ape-stream eval check)")
    typer.echo(f"{len(ready)} of {len(tasks)} tasks are on this disk", err=True)
    return ready


class _Lines:
    """A line on standard error for each part that is done."""

    def __init__(self) -> None:
        self._done = 0

    def progress(self, progress: Progress) -> None:
        """See `Listener`."""
        self._done = sum(state.is_over for state in progress.clips)

    def clip(self, state: ClipState) -> None:
        """See `Listener`."""
        self._done += 1
        end = f"failed: {state.reason}" if state.status == "failed" else f"{state.frames} images"
        typer.echo(f"[{self._done}] {state.clip.name}: {end}", err=True)

    def note(self, line: str) -> None:
        """See `Listener`."""
        typer.echo(line, err=True)


def _run(options: RunOptions, *, as_json: bool) -> None:
    from ape_stream.evaluation.benchmarks.prediction.run import predict  # noqa: PLC0415 (the same)

    stop = threading.Event()
    on_first_signal(stop.set)
    try:
        states = predict(options, _Lines(), stop)
    except StoppedError:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(3) from None
    failed = [state for state in states if state.status == "failed"]
    images = sum(state.frames for state in states if state.status == "done")
    if as_json:
        reasons = {state.clip.name: state.reason for state in failed}
        typer.echo(json.dumps({"out": str(options.out), "images": images, "failed": reasons}))
    else:
        typer.echo(f"{images} images predicted in {options.out}")
    if failed:
        raise typer.Exit(3)


def write_miniature(
    out: Annotated[Path, typer.Argument(help="Folder for the data sets: a --root.")],
    tasks: TASKS = None,
    images: Annotated[int, typer.Option(min=2, max=1000, help="Images of each.")] = 5,
    *,
    as_json: JSON = False,
) -> None:
    """Write data sets of a few tiny images, in the files and folders of the real ones."""
    from ape_stream.evaluation.benchmarks.miniature import (  # noqa: PLC0415 (OpenCV, SciPy)
        write_miniatures,
    )

    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty: give another folder")
    selected = select_tasks(tasks or [])
    write_miniatures(selected, out, images)
    if as_json:
        typer.echo(json.dumps({"root": str(out), "tasks": [task.name for task in selected]}))
    else:
        typer.echo(f"{len(selected)} tasks in {out}: ape-stream eval check --root {out}")
