"""`ape-stream eval browse`: the worst images of a run as a page, or as a list."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 (typer reads annotations while running)
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ape_stream.evaluation.benchmarks.places import root_of
from ape_stream.evaluation.benchmarks.results import JSON, ROOT, RUN, chosen_tasks
from ape_stream.files import PartFile, written

if TYPE_CHECKING:
    from ape_stream.evaluation.benchmarks.judging.worst import Case, Worst

__all__ = ["browse_run"]


def browse_run(  # noqa: PLR0913 (options of a command)
    run: RUN,
    task: Annotated[
        list[str] | None, typer.Option(help="Name, group or pattern; several times. Default: all.")
    ] = None,
    root: ROOT = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page. Default: worst.html in RUN.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, max=1000, help="Most images of a task.")] = 30,
    iou: Annotated[
        float, typer.Option(min=0.01, max=1, help="Least IoU of a box and its true one.")
    ] = 0.5,
    score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Lowest score that counts. Default: that of the best F1."),
    ] = None,
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page.")] = False,
    as_json: JSON = False,
) -> None:
    """Show the worst images of a run on a page: what is missed, and what is a false alarm."""
    from ape_stream.evaluation.benchmarks.judging.page import page  # noqa: PLC0415 (heavy)
    from ape_stream.evaluation.benchmarks.judging.store import Store  # noqa: PLC0415 (the same)
    from ape_stream.evaluation.benchmarks.judging.worst import worst  # noqa: PLC0415 (the same)

    store = Store(run, root_of(root))
    file = None
    if output is not None or not as_json:
        file = PartFile(output or run / "worst.html", overwrite=overwrite)
        file.refuse_loss()
    found = []
    for one in chosen_tasks(store, task or []):
        stored = store.open(one)
        found.append((stored.data, worst(stored, images, iou=iou, score=score)))
    if file is not None:
        file.open()
        title = f"Worst images of {store.manifest.name}"
        with file.finishing(whole=True), written(file.part), file.stream("w") as stream:
            stream.writelines(page(title, found))
    if as_json:
        typer.echo(json.dumps({"tasks": [_plain(one) for _, one in found]}))
    else:
        shown = sum(len(one.cases) for _, one in found)
        typer.echo(f"{shown} images of {len(found)} tasks in {file and file.path}")


def _plain(found: Worst) -> dict[str, Any]:
    return {
        "task": found.task,
        "images": found.images,
        "threshold": found.threshold,
        "worst": [_plain_case(case) for case in found.cases],
    }


def _plain_case(case: Case) -> dict[str, Any]:
    about = {"image_id": case.record.key, "file": str(case.record.path)}
    if case.wrong is not None:
        return about | {"wrong_pixels": case.errors}
    return about | {
        "missed": case.count("missed"),
        "false_alarms": case.count("false alarm"),
        "right": case.count("right"),
        "boxes": [
            {"kind": mark.kind, "class": mark.name, "bbox": mark.xywh, "score": mark.score}
            for mark in case.marks
        ],
    }
