"""`annotate` for files: from options to a job over a shelf of clips, and its report at the end."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import typer

from ape_stream.annotation.job import OutputOptions
from ape_stream.annotation.review import rejected_in
from ape_stream.annotation.shelf import ShelfOptions, annotate_shelf
from ape_stream.annotation.summary import table_of
from ape_stream.batch.clips import is_clip
from ape_stream.batch.run import Takeover
from ape_stream.batch.selection import Selection, parse_time
from ape_stream.batch.workers import Engine, EngineKind
from ape_stream.cli.console import error_console, say
from ape_stream.cli.shelf_view import Bars, JsonLines, Lines
from ape_stream.errors import StoppedError, UsageError
from ape_stream.signals import on_first_signal
from ape_stream.values.texts import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ape_stream.annotation.shelf import ShelfResult
    from ape_stream.batch.state import ClipState, Listener
    from ape_stream.config import RunConfig

__all__ = [
    "EXIT_INCOMPLETE",
    "ShelfGiven",
    "annotate_files",
    "engine_of",
    "exit_for",
    "is_for_files",
    "selection_of",
    "with_progress",
]

Result = TypeVar("Result")

EXIT_INCOMPLETE = 3
"""Exit code where some clips failed or broke off early, and all others are done."""


@dataclass(frozen=True, slots=True)
class ShelfGiven:
    """Options of `annotate` that only a job over files has; None where one was not given."""

    out_dir: Path | None = None
    start: str | None = None
    end: str | None = None
    stride: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    save_frames: str | None = None
    format: Sequence[str] = ()
    overlay: bool = True
    jobs: int | None = None
    batch: int | None = None
    stall: float | None = None
    engine: str | None = None
    actors: int | None = None
    address: str | None = None
    resume: bool = False
    extend: bool = False
    retry_failed: bool = False
    apply: Path | None = None
    blur: Sequence[str] = field(default_factory=list)
    pixelate: Sequence[str] = field(default_factory=list)

    def only_for_files(self) -> list[str]:
        """The options that were given and that a live run does not have."""
        both = {"blur", "pixelate", "overlay"}
        given = [f.name for f in fields(self) if f.name not in both and getattr(self, f.name)]
        return [f"--{name.replace('_', '-')}" for name in given]


def is_for_files(sources: Sequence[str], outputs: Sequence[Any], given: ShelfGiven) -> bool:
    """Whether a command line is a job over files: no outputs of its own, and no live source.

    Raises:
        UsageError: options of both kinds are given.
    """
    if given.out_dir is not None or (not outputs and all(map(is_clip, sources))):
        if outputs:
            raise UsageError("give --output or --out-dir, not both")
        return True
    if only := given.only_for_files():
        raise UsageError(f"{', '.join(only)}: only for files and --out-dir, not with --output")
    return False


def annotate_files(
    sources: Sequence[str], run: RunConfig, given: ShelfGiven, *, overwrite: bool, as_json: bool
) -> None:
    """Annotate clip by clip, with progress; see `annotate_shelf`.

    Raises:
        typer.Exit: with code 3 where some clips are not whole, with 1 where none is.
        ApeStreamError: nothing can be done.
    """
    options = _options(sources, run, given, overwrite=overwrite)
    if given.resume and not (options.out / "plan.json").exists():
        raise UsageError(f"{options.out} holds no plan: there is nothing to go on with")
    result = with_progress(
        lambda listener, stop: annotate_shelf(options, listener, stop), as_json=as_json
    )
    if result is not None:
        _report(result, as_json=as_json)
        exit_for(result.states)


def with_progress(
    work: Callable[[Listener, threading.Event], Result], *, as_json: bool
) -> Result | None:
    """Do a job over files and show how it stands; None where it was stopped."""
    stop = threading.Event()
    on_first_signal(stop.set)
    view = _view(as_json=as_json)
    try:
        with view:
            return work(cast("Listener", view), stop)
    except StoppedError:
        say("stopped; the same command goes on from here")
        return None


def exit_for(states: Sequence[ClipState]) -> None:
    """Leave with the code that a job's clips call for.

    Raises:
        typer.Exit: with code 3 where some clips are not whole, with 1 where none is.
    """
    if all(state.status == "failed" for state in states):
        raise typer.Exit(1)
    if any(state.status == "failed" or state.problem for state in states):
        raise typer.Exit(EXIT_INCOMPLETE)


def _options(
    sources: Sequence[str], run: RunConfig, given: ShelfGiven, *, overwrite: bool
) -> ShelfOptions:
    source = dict(run.sources[0].options) if run.sources else {}
    return ShelfOptions(
        sources=sources,
        out=given.out_dir or Path("out"),
        run=run,
        source=source,
        selection=selection_of(given),
        formats=_formats(given.format),
        outputs=OutputOptions(
            overlay=given.overlay,
            blur=list(given.blur),
            pixelate=list(given.pixelate),
            save_frames=_image_suffix(given.save_frames),
            rejected={} if given.apply is None else rejected_in(given.apply),
        ),
        batch=_at_least_1(given.batch, "--batch"),
        engine=engine_of(given),
        takeover=Takeover(overwrite, given.extend, given.retry_failed),
        apply=given.apply is not None,
    )


def selection_of(given: ShelfGiven) -> Selection:
    """Which frames, from options of a command.

    Raises:
        UsageError: they select nothing, or contradict themselves.
    """
    return Selection(
        start_s=parse_time(given.start) if given.start else 0.0,
        end_s=parse_time(given.end) if given.end else None,
        stride=1 if given.stride is None else given.stride,
        fps=given.fps,
        max_frames=given.max_frames,
    )


def _formats(names: Sequence[str]) -> tuple[str, ...]:
    if "none" in names:
        return ()
    return tuple(dict.fromkeys(names)) or ("coco",)


def _image_suffix(given: str | None) -> str | None:
    if given not in (None, "jpg", "png"):
        raise UsageError(f"--save-frames is jpg or png, not {given!r}")
    return given


def engine_of(given: ShelfGiven) -> Engine:
    """What does the work, from options of a command.

    Raises:
        UsageError: an option is out of its range.
    """
    return Engine(
        jobs=_at_least_1(given.actors if given.engine == "ray" else given.jobs, "--jobs"),
        stall_s=300.0 if given.stall is None else given.stall,
        kind=cast("EngineKind", given.engine or "processes"),  # checked there
        address=given.address,
    )


def _at_least_1(given: int | None, option: str) -> int:
    if given is not None and given < 1:
        raise UsageError(f"{option} is at least 1, got {given}")
    return given or 1


def _view(*, as_json: bool) -> Bars | Lines | JsonLines:
    if as_json:
        return JsonLines()
    console = error_console()
    return Bars(console) if console.is_terminal else Lines()


def _report(result: ShelfResult, *, as_json: bool) -> None:
    """Say what was found, what was not, and what failed; names of files on standard output."""
    summary = result.summary
    if as_json:
        files = [str(path) for path in result.files]
        typer.echo(json.dumps({"event": "finished", "files": files, "summary": summary}))
        return
    error_console().print(table_of(summary))
    for state in result.states:
        if state.status == "failed":
            say(f"failed: {state.clip.source}: {state.reason}")
        elif state.problem:
            say(f"not whole: {state.clip.source}: {state.problem}")
    if summary["words_not_found"]:
        say(f"found nowhere: {', '.join(summary['words_not_found'])}")
    if summary["clips_without"]:
        say(f"nothing found in {counted(len(summary['clips_without']), 'clip')}, see summary.json")
    for path in result.files:
        typer.echo(path)
