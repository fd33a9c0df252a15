"""The verbs of the core: annotate, run, doctor, list."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path  # noqa: TC003 (typer reads annotations while running)
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ape_stream.cli.doctor import examine
from ape_stream.cli.progress import consume, summary
from ape_stream.config import OutputConfig, PluginConfig, RunConfig, SourceConfig, load
from ape_stream.config.build import build_pipeline
from ape_stream.errors import PromptError, UsageError
from ape_stream.plugins import GROUPS, survey
from ape_stream.specs import expand, stream_name
from ape_stream.text import read_text
from ape_stream.types import PromptSet

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ape_stream.pipeline import Pipeline

__all__ = ["EXIT_TRUNCATED", "annotate", "doctor", "execute", "list_plugins", "run"]

EXIT_TRUNCATED = 3
"""Exit code where a source broke off early and all that decodes was processed."""

DEFAULT_OUTPUTS = ("overlay.mp4", "tracks.json", "results.jsonl", "sheet.png")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]


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
        Path | None, typer.Option(help="A text file with one prompt a line (commas allowed).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file for what these options leave open.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="nano, or a model you imported.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    threshold: Annotated[float | None, typer.Option(help="Lowest score kept, 0..1.")] = None,
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
        typer.Option(help="out.mp4, out.json, out.jsonl, labels/, window, zmq:...; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find, mask and track what the prompts name; write it to out/<name>/."""
    base = load(config) if config is not None else None
    wanted = _prompts(prompt or [], prompts_file)
    given = {"stream": stream, "live": live, "wait_s": wait}
    options = {name: value for name, value in given.items() if value is not None}
    watched = _named([SourceConfig(source, None, options) for source in sources])
    plan = base if base is not None else RunConfig(sources=watched, prompts=_needed(wanted))
    plan = replace(
        plan,
        sources=watched,
        prompts=wanted or plan.prompts,
        model=_model(plan.model, model=model, device=device),
        threshold=plan.threshold if threshold is None else threshold,
        outputs=_outputs(output or [], plan.outputs, watched),
    )
    execute(plan, as_json=as_json)


def run(
    config: Annotated[Path, typer.Argument(help="A TOML file that describes the run.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Run what a TOML file describes."""
    execute(load(config), as_json=as_json)


def doctor(*, as_json: AsJson = False) -> None:
    """Say what is here, and which kernels will run, and why."""
    findings = examine()
    if as_json:
        typer.echo(json.dumps([{"what": what, "finding": found} for what, found in findings]))
        return
    width = max(len(what) for what, _ in findings)
    for what, found in findings:
        typer.echo(f"{what:<{width}}  {found}")


def list_plugins(*, as_json: AsJson = False) -> None:
    """List every plugin: sources, outputs, trackers, models, worlds, commands."""
    plugins = [plugin for group in GROUPS for plugin in survey(group)]
    if as_json:
        typer.echo(json.dumps([asdict(plugin) for plugin in plugins]))
        return
    for group in GROUPS:
        typer.echo(f"{group}:")
        for plugin in (p for p in plugins if p.group == group):
            state = f"cannot be used: {plugin.problem}" if plugin.problem else plugin.package
            typer.echo(f"  {plugin.name:<12} {state}")


# -- a run from options -----------------------------------------------------------------------


def _prompts(lines: list[str], file: Path | None) -> PromptSet | None:
    texts = [part for line in lines for part in line.split(",") if part.strip()]
    if file is not None:
        try:
            texts += [line for line in read_text(file).splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the prompts in {file}: {error}") from error
    if not texts and (lines or file is not None):
        raise PromptError("no prompt given: name at least one thing to find")
    return PromptSet.of(texts) if texts else None


def _needed(prompts: PromptSet | None) -> PromptSet:
    if prompts is None:
        raise PromptError('no prompt given: say what to find, as in --prompt "red apple, dog face"')
    return prompts


def _named(configs: list[SourceConfig]) -> tuple[SourceConfig, ...]:
    """The sources that are meant, lists opened, each with a name for its folder of outputs."""
    taken: set[str] = set()
    named = []
    for config in configs:
        for spec in expand(config.source):
            name = stream_name(spec, taken)
            taken.add(name)
            named.append(SourceConfig(spec, name, config.options))
    return tuple(named)


def _model(given: PluginConfig, **options: str | None) -> PluginConfig:
    named = {key: value for key, value in options.items() if value is not None}
    return replace(given, options={**given.options, **named})


def _outputs(
    named: list[str], configured: tuple[OutputConfig, ...], sources: tuple[SourceConfig, ...]
) -> tuple[OutputConfig, ...]:
    if named:
        return tuple(OutputConfig(output) for output in named)
    if configured:
        return configured
    return tuple(
        OutputConfig(f"out/{source.name}/{file}", source.name)
        for source in sources
        for file in DEFAULT_OUTPUTS
    )


# -- execution ----------------------------------------------------------------------------------


def execute(
    plan: RunConfig,
    *,
    as_json: bool,
    serving: Callable[[Pipeline], AbstractContextManager[Any]] | None = None,
) -> None:
    """Run a plan to its end with progress, a report and the exit code.

    Args:
        plan: The run.
        as_json: Report as one JSON object, and show no progress.
        serving: What is entered for as long as the pipeline runs, such as a control socket.
    """
    pipeline = build_pipeline(plan)
    with pipeline, nullcontext() if serving is None else serving(pipeline):
        consume(pipeline, quiet=as_json)
    _report(pipeline, [output.output for output in plan.outputs], as_json=as_json)
    if pipeline.outcome == "truncated":
        raise typer.Exit(EXIT_TRUNCATED)


def _report(pipeline: Pipeline, outputs: list[str], *, as_json: bool) -> None:
    stats = pipeline.stats()
    if as_json:
        report: dict[str, Any] = {
            "outcome": pipeline.outcome,
            "outputs": outputs,
            "warnings": [str(error) for error in pipeline.truncated],
            "prompts": list(pipeline.prompts.texts),
            "stats": stats.as_dict(),
        }
        typer.echo(json.dumps(report))
        return
    typer.echo(summary(stats), err=True)
    for output in outputs:
        typer.echo(output)
