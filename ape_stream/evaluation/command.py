"""`ape-stream eval`: judge a model and print the figures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ape_stream.errors import UsageError

if TYPE_CHECKING:
    from ape_stream.evaluation.synthetic import EvaluationPlan, Report
    from ape_stream.protocols import Perceiver, Tracker
    from ape_stream.protocols.worlds import World

__all__ = ["app", "group", "synthetic"]

app = typer.Typer(help="Judge a model on data whose truth is known.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Judge a model on data whose truth is known."""


@app.command()
def synthetic(
    model: Annotated[str, typer.Option(help="Model to judge.")] = "nano",
    seed: Annotated[int, typer.Option(min=0, help="First seed; not one of the training's.")] = (
        1_000_000
    ),
    scenes: Annotated[int, typer.Option(min=1, help="Pictures of each kind.")] = 100,
    size: Annotated[str, typer.Option(help="Width x height in pixels.")] = "256x256",
    videos: Annotated[int, typer.Option(min=0, help="Videos for the tracks.")] = 3,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Default threshold; else the model's own.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for machines.")] = False,
) -> None:
    """Judge a model on unseen scenes and videos of the drawn world."""
    from ape_stream.evaluation.synthetic import EvaluationPlan  # noqa: PLC0415 (OpenCV and numpy)

    plan = EvaluationPlan(seed=seed, scenes=scenes, size=_height_width(size), videos=videos)
    try:
        report = _run(model, threshold, plan, quiet=as_json)
    except (UsageError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    if as_json:
        typer.echo(json.dumps({"model": model, **report}))
    else:
        Console().print(_table(model, report))


def _height_width(size: str) -> tuple[int, int]:
    width, cross, height = size.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"--size is WIDTHxHEIGHT, such as 320x240, not {size!r}")
    return int(height), int(width)


def _run(model: str, threshold: float | None, plan: EvaluationPlan, *, quiet: bool) -> Report:
    from ape_stream import plugins  # noqa: PLC0415 (with the others)
    from ape_stream.evaluation.synthetic import evaluate  # noqa: PLC0415 (OpenCV and numpy)

    options: dict[str, Any] = {"model": model}
    if threshold is not None:
        options["threshold"] = threshold
    perceiver: Perceiver = plugins.make("perceivers", "ape", options=options)
    world: World = plugins.make("worlds", "emoji", options={})

    def tracker() -> Tracker:
        made: Tracker = plugins.make("trackers", "iou", options={})
        return made

    def progress(what: str) -> None:
        if not quiet:
            typer.echo(f"judging {what} ...", err=True)

    return evaluate(perceiver, world, plan, tracker, progress)


def _table(model: str, report: Report) -> Table:
    table = Table("figure", "value", title=f"{model} on the drawn world")
    for name, value in report.items():
        if isinstance(value, dict):
            for part, figure in value.items():
                table.add_row(f"{name}: {part}", f"{figure:.3g}")
        else:
            table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    return table
