"""The commands of the core: annotate, run, convert, recover, doctor, list.

Only their options are here: what they need is imported when they run, so that help is quick.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path  # noqa: TC003 (typer reads annotations while running)
from typing import Annotated

import typer

from ape_stream.cli import options as opt  # noqa: TC001 (typer reads annotations while running)
from ape_stream.cli.console import say_error
from ape_stream.errors import ApeStreamError
from ape_stream.formats.registry import FORMATS

__all__ = ["annotate", "convert", "doctor", "list_plugins", "recover", "run"]


def annotate(  # noqa: PLR0913 (typer reads a command's options from its parameters)
    sources: opt.Sources,
    *,
    prompt: opt.Prompt = None,
    prompts_file: opt.PromptsFile = None,
    config: opt.Config = None,
    model: opt.Model = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    canvas: opt.Canvas = None,
    threshold: opt.Threshold = None,
    tracker: opt.Tracker = None,
    policy: opt.Policy = None,
    stream: opt.Stream = None,
    live: opt.Live = None,
    wait: opt.Wait = None,
    output: opt.Output = None,
    metrics: opt.Metrics = None,
    blur: opt.Blur = None,
    pixelate: opt.Pixelate = None,
    out_dir: opt.OutDir = None,
    start: opt.Start = None,
    end: opt.End = None,
    stride: opt.Stride = None,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    save_frames: opt.SaveFrames = None,
    format: opt.Format = None,  # noqa: A002 (the name of the option)
    overlay: opt.Overlay = True,
    jobs: opt.Jobs = None,
    batch: opt.Batch = None,
    stall: opt.Stall = None,
    engine: opt.Engine = None,
    actors: opt.Actors = None,
    address: opt.Address = None,
    resume: opt.Resume = False,
    extend: opt.Extend = False,
    retry_failed: opt.RetryFailed = False,
    apply: opt.Apply = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Find, mask and track what the prompts name; files go clip by clip to the folder out/."""
    given = dict(locals())  # all options, by name; nothing else is there yet
    from ape_stream.cli.annotate import annotate_given  # noqa: PLC0415 (numpy takes its time)

    annotate_given(given)


def run(
    config: opt.ConfigFile,
    *,
    metrics: opt.Metrics = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Run what a TOML file describes."""
    from ape_stream.cli import plan  # noqa: PLC0415 (numpy takes its time)
    from ape_stream.cli.execute import execute  # noqa: PLC0415

    execute(plan.from_file(config, overwrite=overwrite, metrics=metrics), as_json=as_json)


def convert(
    records: Annotated[
        list[Path],
        typer.Argument(help="Files of the output jsonl, or the folder of an annotation job."),
    ],
    *,
    format: Annotated[  # noqa: A002 (the option's name)
        list[str], typer.Option(help=f"May be repeated. One of {', '.join(FORMATS)}.")
    ],
    out_dir: Annotated[Path, typer.Option(help="Each format gets a folder of its name in it.")],
    val: Annotated[
        list[str] | None,
        typer.Option(help="Videos of the validation split, by name or pattern. May be repeated."),
    ] = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Write results as annotation formats, without running a model again."""
    from ape_stream.formats import convert as conversion  # noqa: PLC0415 (numpy takes its time)

    writers = conversion.convert(records, format, out_dir, val=val or (), overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps([writer.summary for writer in writers]))
        return
    for writer in writers:
        typer.echo(f"{writer.path}: {writer.images} images, {writer.instances} instances")
        for loss in writer.losses:
            typer.echo(f"  not kept: {loss.count} {loss.what}")


def recover(
    parts: Annotated[
        list[Path], typer.Argument(help="What a run left: out.json.part, labels.part, ...")
    ],
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file of the final name.")
    ] = False,
) -> None:
    """Make whole files of what a run wrote that was cut short."""
    from ape_stream.sinks.recover import recover as make_whole  # noqa: PLC0415 (PyAV)

    problems: list[ApeStreamError] = []
    for part in parts:
        try:
            path, holds = make_whole(part, overwrite=overwrite)
        except ApeStreamError as error:  # the other parts need not stay as they are
            problems.append(error)
        else:
            typer.echo(f"{path}: {holds}")
    for problem in problems[:-1]:
        say_error(str(problem))
    if problems:
        raise problems[-1]


def doctor(*, as_json: opt.AsJson = False) -> None:
    """Show what is installed, and which kernels will run, and why."""
    from ape_stream.cli.doctor import examine  # noqa: PLC0415 (asks every plugin)

    findings = examine()
    if as_json:
        typer.echo(json.dumps([{"what": what, "finding": found} for what, found in findings]))
        return
    width = max(len(what) for what, _ in findings)
    for what, found in findings:
        typer.echo(f"{what:<{width}}  {found}")


def list_plugins(*, as_json: opt.AsJson = False) -> None:
    """List every plugin: sources, outputs, trackers, models, worlds, commands."""
    from ape_stream.plugins import GROUPS, survey  # noqa: PLC0415 (with the others)

    plugins = [plugin for group in GROUPS for plugin in survey(group)]
    if as_json:
        typer.echo(json.dumps([asdict(plugin) for plugin in plugins]))
        return
    for group in GROUPS:
        typer.echo(f"{group}:")
        for plugin in (p for p in plugins if p.group == group):
            state = f"cannot be used: {plugin.problem}" if plugin.problem else plugin.package
            typer.echo(f"  {plugin.name:<12} {state}")
