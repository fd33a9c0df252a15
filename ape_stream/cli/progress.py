"""What a person sees of a run: a bar on a terminal, plain lines elsewhere, warnings, a summary."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ape_stream.pipeline import Pipeline
    from ape_stream.stats import RunStats

__all__ = ["consume", "show_warnings", "summary"]

_LINE_EVERY_S = 5.0
_BAR_EVERY_S = 0.2


class _View(Protocol):
    every_s: float

    def show(self, stats: RunStats) -> None: ...

    def close(self) -> None: ...


class _Bar:
    """A bar with frames/s, age and time left."""

    every_s = _BAR_EVERY_S

    def __init__(self, console: Console, total: int | None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("frames", total=total, numbers="")
        self._progress.start()

    def show(self, stats: RunStats) -> None:
        self._progress.update(self._task, completed=stats.published, numbers=_numbers(stats))

    def close(self) -> None:
        self._progress.stop()


class _Lines:
    """A line every few seconds, for logs."""

    every_s = _LINE_EVERY_S

    def __init__(self, total: int | None) -> None:
        self._total = total

    def show(self, stats: RunStats) -> None:
        of = "" if self._total is None else f"/{self._total}"
        line = f"{stats.published}{of} frames, {_numbers(stats)}{self._time_left(stats)}"
        print(line, file=sys.stderr, flush=True)  # noqa: T201 (this is the console)

    def _time_left(self, stats: RunStats) -> str:
        if self._total is None or not stats.published:
            return ""
        left_s = (self._total - stats.published) * stats.elapsed_s / stats.published
        return f", {left_s:.0f} s left"

    def close(self) -> None:
        """Nothing to put away."""


def _numbers(stats: RunStats) -> str:
    rate = sum(stream.publish_hz for stream in stats.streams.values())
    ages = [s.age_ms_p50 for s in stats.streams.values() if s.age_ms_p50 is not None]
    age = f", age {max(ages):.0f} ms" if ages else ""
    dropped = f", {stats.dropped} dropped" if stats.dropped else ""
    return f"{rate:.1f} frames/s{age}{dropped}"


def consume(run: Pipeline, *, quiet: bool) -> None:
    """Run to the end and show how it goes, on standard error.

    Args:
        run: A pipeline that is entered.
        quiet: Show nothing.

    Raises:
        PipelineError: a stage failed.
    """
    console = Console(stderr=True)
    view: _View | None = None
    if not quiet:
        total = run.frame_count
        view = _Bar(console, total) if console.is_terminal else _Lines(total)
    try:
        _watch(run, view)
    finally:
        if view is not None:
            view.close()


def _watch(run: Pipeline, view: _View | None) -> None:
    shown_s = time.monotonic()
    for _ in run:
        if view is not None and time.monotonic() - shown_s >= view.every_s:
            shown_s = time.monotonic()
            view.show(run.stats())
    if view is not None:
        view.show(run.stats())


def summary(stats: RunStats) -> str:
    """One line about a finished run: frames, time, rate, drops by cause."""
    rate = stats.published / stats.elapsed_s if stats.elapsed_s else 0.0
    causes: dict[str, int] = {}
    for stream in stats.streams.values():
        _add(causes, stream.dropped)
    drops = "".join(f", {count} dropped ({cause})" for cause, count in sorted(causes.items()))
    return f"{stats.published} frames in {stats.elapsed_s:.1f} s, {rate:.1f} frames/s{drops}"


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for cause, count in more.items():
        total[cause] = total.get(cause, 0) + count


class _OneLine(logging.Handler):
    """Writes to whatever standard error is now, so that redirection works."""

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{record.levelname.lower()}: {record.getMessage()}"
        print(line, file=sys.stderr, flush=True)  # noqa: T201 (this is the console)


def show_warnings() -> None:
    """Print warnings of the library as single lines on standard error; safe to call again."""
    logger = logging.getLogger("ape_stream")
    if not any(isinstance(handler, _OneLine) for handler in logger.handlers):
        logger.addHandler(_OneLine(logging.WARNING))
    logger.propagate = False
