"""The commands of the core: annotate, run, recover, doctor, list.

Only their options are here: what they need is imported when they run, so that help is quick.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path  # noqa: TC003 (typer reads annotations while running)
from typing import Annotated

import typer

__all__ = ["AsJson", "Overwrite", "annotate", "doctor", "list_plugins", "recover", "run"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs of an earlier run.")]


def annotate(  # noqa: PLR0913 (typer reads a command's options from its parameters)
    sources: Annotated[
        list[str], typer.Argument(help="Files, folders, patterns, devices or URLs; all at once.")
    ],
    *,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help='What to look for: "red apple, dog face". May be repeated.'),
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            help="A text file with one prompt a line; a comma is part of a prompt, a line that"
            " begins with # is a comment."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file for what these options leave open.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="nano, or a model you imported.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the network: float32, bfloat16, float16.")
    ] = None,
    canvas: Annotated[
        int | None, typer.Option(help="Longest side that the network sees, pixels.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(help="Lowest score kept, 0..1; 'dog face=0.6' for one prompt. Repeatable."),
    ] = None,
    tracker: Annotated[
        str | None, typer.Option(help="iou, another tracker, or none for no track ids.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Frames for which there is no time: every, newest or auto.")
    ] = None,
    stream: Annotated[
        int | None, typer.Option(help="Which video stream of a file, from 0.")
    ] = None,
    live: Annotated[
        bool | None,
        typer.Option(
            "--live/--no-live",
            help="Whether a URL is live (old frames are dropped) or read to its end, every frame;"
            " found out where neither is given.",
        ),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(help="Seconds for which a URL that does not open yet is tried again."),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            help="out.mp4, out.json, out.jsonl, out.png, labels/, window, zmq:...; repeatable."
            " {stream} in it stands for a stream's name."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Find, mask and track what the prompts name; write it to out/<name>/."""
    from ape_stream.cli import plan  # noqa: PLC0415 (numpy takes its time)
    from ape_stream.cli.execute import execute  # noqa: PLC0415

    options = plan.Options(
        sources=sources,
        prompt=prompt or [],
        prompts_file=prompts_file,
        config=config,
        model={"model": model, "device": device, "dtype": dtype, "canvas": canvas},
        thresholds=threshold or [],
        tracker=tracker,
        policy=policy,
        source={"stream": stream, "live": live, "wait_s": wait},
        output=output or [],
        overwrite=overwrite,
    )
    execute(plan.from_options(options), as_json=as_json)


def run(
    config: Annotated[Path, typer.Argument(help="A TOML file that describes the run.")],
    *,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Run what a TOML file describes."""
    from ape_stream.cli import plan  # noqa: PLC0415 (numpy takes its time)
    from ape_stream.cli.execute import execute  # noqa: PLC0415

    execute(plan.from_file(config, overwrite=overwrite), as_json=as_json)


def recover(
    part: Annotated[Path, typer.Argument(help="What a run left: out.json.part, labels.part, ...")],
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file of the final name.")
    ] = False,
) -> None:
    """Make a whole file of what a run wrote that was cut short."""
    from ape_stream.sinks.recover import recover as make_whole  # noqa: PLC0415 (PyAV)

    path, holds = make_whole(part, overwrite=overwrite)
    typer.echo(f"{path}: {holds}")


def doctor(*, as_json: AsJson = False) -> None:
    """Show what is installed, and which kernels will run, and why."""
    from ape_stream.cli.doctor import examine  # noqa: PLC0415 (asks every plugin)

    findings = examine()
    if as_json:
        typer.echo(json.dumps([{"what": what, "finding": found} for what, found in findings]))
        return
    width = max(len(what) for what, _ in findings)
    for what, found in findings:
        typer.echo(f"{what:<{width}}  {found}")


def list_plugins(*, as_json: AsJson = False) -> None:
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
