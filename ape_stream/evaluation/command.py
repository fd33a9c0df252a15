"""`ape-stream eval`: judge a model and print the figures."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path  # noqa: TC003 (typer reads annotations while running)
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ape_stream.errors import UsageError
from ape_stream.evaluation.benchmarks.command import add_to
from ape_stream.evaluation.plan import DEFAULT_SIZES, EvaluationPlan, Report, size_name
from ape_stream.tables import read_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ape_stream.protocols import Perceiver, Tracker
    from ape_stream.protocols.worlds import World

__all__ = ["app", "detection", "group", "semantic", "synthetic"]

_SIZES = [size_name(size) for size in DEFAULT_SIZES]

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
    scenes: Annotated[int, typer.Option(min=1, help="Images of each kind, in all sizes.")] = 100,
    size: Annotated[
        list[str], typer.Option(help="WIDTHxHEIGHT in pixels; give it several times.")
    ] = _SIZES,
    videos: Annotated[int, typer.Option(min=0, help="Videos for the tracks.")] = 3,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Default threshold; else the model's own.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for machines.")] = False,
) -> None:
    """Judge a model on unseen scenes and videos of the drawn world."""
    sizes = tuple(read_size(text, "--size", typer.BadParameter) for text in size)
    try:
        plan = EvaluationPlan(seed=seed, scenes=scenes, sizes=sizes, videos=videos)
        report = _run(model, threshold, plan, quiet=as_json)
    except (UsageError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    if as_json:
        typer.echo(json.dumps({"model": model, **report}))
        return
    console = Console(markup=False, emoji=False)
    for table in _tables(model, report):
        console.print(table)


@app.command()
def semantic(
    *,
    images: Annotated[Path, typer.Option(help="Folder of images, in any depth.")],
    labels: Annotated[
        Path, typer.Option(help="Folder of PNGs of the same names: a pixel's value is its class.")
    ],
    classes: Annotated[
        Path, typer.Option(help="JSON list of class names; the position is the value.")
    ],
    model: Annotated[str, typer.Option(help="Model to judge.")] = "nano",
    canvas: Annotated[
        int | None, typer.Option(help="Longest side that the network sees, pixels.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "auto",
    rule: Annotated[str, typer.Option(help="How queries paint: paper, sum or max.")] = "paper",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for machines.")] = False,
) -> None:
    """Judge the semantic maps of a model on images with a label image each."""
    from ape_stream import plugins  # noqa: PLC0415 (with the others)
    from ape_stream.evaluation.labelled import (  # noqa: PLC0415 (Pillow)
        LabelledImages,
        read_classes,
    )
    from ape_stream.evaluation.semantic import judge_semantic  # noqa: PLC0415 (the same)

    prompts = read_classes(classes)
    pairs = LabelledImages(images, labels, len(prompts))
    # Every pixel is judged, so each gets a class. Regions would cost time: none reaches 1.
    options = {"device": device, "map_rule": rule, "map_threshold": 0.0}
    options |= {"threshold": 1.0} if canvas is None else {"threshold": 1.0, "canvas": canvas}
    perceiver: Perceiver = plugins.make_model(model, options)

    progress = _progress(len(pairs.paths()), quiet=as_json)
    report = judge_semantic(perceiver, prompts, pairs, progress)
    if as_json:
        typer.echo(json.dumps({"model": model, **report}))
        return
    Console(markup=False, emoji=False).print(_semantic_table(model, report))


@app.command()
def detection(
    *,
    data: Annotated[
        Path, typer.Option(help="A COCO file, a folder of Pascal VOC, or a data.yaml of YOLO.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images; default: where the format has them.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test; default: val, else test, if named.")
    ] = None,
    model: Annotated[str, typer.Option(help="Model to judge.")] = "nano",
    canvas: Annotated[
        int | None, typer.Option(help="Longest side that the network sees, pixels.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for machines.")] = False,
) -> None:
    """Judge the boxes and masks of a model on your labelled images."""
    from ape_stream import plugins  # noqa: PLC0415 (with the others)
    from ape_stream.datasets.read import read_instances, splits_of  # noqa: PLC0415 (pycocotools)
    from ape_stream.evaluation.detection import judge_detection  # noqa: PLC0415 (the same)

    named = splits_of(data)
    chosen = split or next((one for one in ("val", "test") if one in named), None)
    labelled = read_instances(data, images, chosen)
    options: dict[str, Any] = {"device": device} | ({} if canvas is None else {"canvas": canvas})
    perceiver: Perceiver = plugins.make_model(model, options)
    report = judge_detection(perceiver, labelled, _progress(len(labelled.images), quiet=as_json))
    if as_json:
        typer.echo(json.dumps({"model": model, "split": chosen, **report}))
        return
    Console(markup=False, emoji=False).print(_detection_table(model, report))


add_to(app)


def _progress(total: int, *, quiet: bool) -> Callable[[int], None]:
    """A line of progress on stderr, written over and over."""

    def show(count: int) -> None:
        if not quiet:
            typer.echo(f"\rjudging {count}/{total} ", nl=count == total, err=True)

    return show


def _detection_table(model: str, report: dict[str, Any]) -> Table:
    columns = list(next(iter(report["by_class"].values())))
    table = Table("class", *columns, title=f"{model}: {report['images']} images")
    for name, figures in report["by_class"].items():
        shown = ["not there" if value is None else f"{value:.3f}" for value in figures.values()]
        table.add_row(name, *shown)
    table.add_row("mean", *(f"{report[name]:.3f}" for name in columns), style="bold")
    table.caption = f"{report['regions']} regions, {report['fps']:.1f} images/s" + "".join(
        f"; left out: {count} {reason}" for reason, count in report["skipped"].items()
    )
    return table


def _semantic_table(model: str, report: dict[str, Any]) -> Table:
    table = Table("figure", "value", title=f"semantic maps of {model}")
    for name in ("images", "miou", "pixel_accuracy", "fps"):
        value = report[name]
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    for name, value in report["iou"].items():
        table.add_row(f"iou: {name}", "not there" if value is None else f"{value:.3f}")
    for group in ("skipped", "unscored"):
        for name, count in report[group].items():
            table.add_row(f"{group}: {name}", str(count))
    return table


def _run(model: str, threshold: float | None, plan: EvaluationPlan, *, quiet: bool) -> Report:
    from ape_stream import plugins  # noqa: PLC0415 (with the others)
    from ape_stream.evaluation.synthetic import evaluate  # noqa: PLC0415 (OpenCV and numpy)

    options = {} if threshold is None else {"threshold": threshold}
    perceiver: Perceiver = plugins.make_model(model, options)
    world: World = plugins.make("worlds", "emoji", options={})
    tracker: Callable[[], Tracker] = partial(plugins.make, "trackers", "iou", options={})

    def progress(what: str) -> None:
        if not quiet:
            typer.echo(f"judging {what} ...", err=True)

    return evaluate(perceiver, world, plan, tracker, progress)


def _tables(model: str, report: Report) -> Iterator[Table]:
    table = Table("figure", "value", title=f"{model} on the drawn world")
    for name, value in report.items():
        if not isinstance(value, dict):
            table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
            continue
        for part, figure in value.items():
            if not isinstance(figure, dict):  # figures by size get a table of their own
                table.add_row(f"{name}: {part}", f"{figure:.3g}")
    yield table
    by_size: Any = report.get("by_size")
    if by_size:
        names = list(next(iter(by_size.values())))
        table = Table("size", *names, title="by size")
        for size, figures in by_size.items():
            table.add_row(size, *(f"{figures[name]:.3f}" for name in names))
        yield table
