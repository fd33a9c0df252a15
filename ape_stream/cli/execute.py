"""Runs what is planned, and reports what came of it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ape_stream.cli.console import say
from ape_stream.cli.progress import consume, found_lines, summary
from ape_stream.config.build import build_pipeline
from ape_stream.files import PART, file_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ape_stream.cli.progress import Found
    from ape_stream.config import RunConfig
    from ape_stream.pipeline import Pipeline

__all__ = ["EXIT_TRUNCATED", "execute"]

EXIT_TRUNCATED = 3
"""Exit code where a source broke off early and all that decodes was processed."""


def execute(
    plan: RunConfig,
    *,
    as_json: bool,
    serving: Callable[[Pipeline], AbstractContextManager[Any]] | None = None,
) -> None:
    """Run to the end, with progress on standard error and the outputs' names on standard output.

    Args:
        plan: The run.
        as_json: Report as one JSON object, and show no progress.
        serving: What is entered for as long as the pipeline runs, such as a control socket.

    Raises:
        typer.Exit: with code 3, where a source was truncated.
        ApeStreamError: the run failed.
    """
    pipeline = build_pipeline(plan)
    try:
        # `serving` is left first: no request comes in while the run closes.
        with pipeline, nullcontext() if serving is None else serving(pipeline):
            found = consume(pipeline, quiet=as_json)
    except BaseException:
        _report_parts(_outputs(plan, pipeline))
        raise
    _report(pipeline, found, _outputs(plan, pipeline), as_json=as_json)
    if pipeline.outcome == "truncated":
        raise typer.Exit(EXIT_TRUNCATED)


def _outputs(plan: RunConfig, pipeline: Pipeline) -> list[str]:
    """The outputs' names, each stream's own where they are named by stream."""
    names: list[str] = []
    for output in plan.outputs:
        streams = pipeline.stats().streams if output.stream is None else [output.stream]
        if "{stream}" in output.output:
            names += [output.output.replace("{stream}", file_name(stream)) for stream in streams]
        else:
            names.append(output.output)
    return names


def _parts(outputs: list[str]) -> list[str]:
    return [part for name in outputs if Path(part := f"{name.rstrip('/')}{PART}").exists()]


def _report_parts(outputs: list[str]) -> None:
    if parts := _parts(outputs):
        say(f"not whole: {', '.join(parts)} (`ape-stream recover` makes whole files of these)")


def _report(pipeline: Pipeline, found: Found, outputs: list[str], *, as_json: bool) -> None:
    stats = pipeline.stats()
    cut_short = pipeline.outcome == "stopped"
    if as_json:
        report: dict[str, Any] = {
            "outcome": pipeline.outcome,
            "outputs": outputs,
            "parts": _parts(outputs) if cut_short else [],
            "warnings": [str(error) for error in pipeline.truncated],
            "prompts": list(pipeline.prompts.texts),
            "found": found.as_dict(),
            "stats": stats.as_dict(),
        }
        typer.echo(json.dumps(report))
        return
    for line in (summary(stats, found), *found_lines(found)):
        say(line)
    if cut_short:
        _report_parts(outputs)
        outputs = [name for name in outputs if not Path(f"{name.rstrip('/')}{PART}").exists()]
    for output in outputs:
        typer.echo(output)
