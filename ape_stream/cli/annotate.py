"""`annotate`: from its options by name to a live run, or to a job over files."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ape_stream.cli import plan, shelf
from ape_stream.cli.execute import execute

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["annotate_given"]


def annotate_given(given: Mapping[str, Any]) -> None:
    """Run what the options of `annotate` describe.

    Args:
        given: Every option by its name; None where one was not given.

    Raises:
        typer.Exit: with another exit code than 0, as the program's documentation says.
        ApeStreamError: something given cannot be used, or the run failed.
    """
    options = _options(given)
    files = _for_files(given)
    run = plan.from_options(options)
    if shelf.is_for_files(options.sources, run.outputs, files):
        overwrite, as_json = given["overwrite"], given["as_json"]
        shelf.annotate_files(options.sources, run, files, overwrite=overwrite, as_json=as_json)
    else:
        execute(plan.with_files(run, options), as_json=given["as_json"])


def _options(given: Mapping[str, Any]) -> plan.Options:
    return plan.Options(
        sources=given["sources"],
        prompt=given["prompt"] or [],
        prompts_file=given["prompts_file"],
        config=given["config"],
        model={name: given[name] for name in ("model", "device", "dtype", "canvas")},
        thresholds=given["threshold"] or [],
        tracker=given["tracker"],
        policy=given["policy"],
        source={"stream": given["stream"], "live": given["live"], "wait_s": given["wait"]},
        output=given["output"] or [],
        metrics=given["metrics"],
        blur=given["blur"] or [],
        pixelate=given["pixelate"] or [],
        overwrite=given["overwrite"],
    )


def _for_files(given: Mapping[str, Any]) -> shelf.ShelfGiven:
    same = {f.name: given[f.name] for f in fields(shelf.ShelfGiven) if f.name in given}
    lists = {name: plan.words(given[name] or []) for name in ("blur", "pixelate", "format")}
    return shelf.ShelfGiven(**{**same, **lists})
