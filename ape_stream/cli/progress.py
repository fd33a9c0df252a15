"""What a person sees of a run: a bar on a terminal, plain lines elsewhere, a summary at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ape_stream.cli.console import error_console, say
from ape_stream.signals import on_first_signal
from ape_stream.values.texts import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from ape_stream.pipeline import Pipeline
    from ape_stream.stats import RunStats
    from ape_stream.types import FrameResult

__all__ = ["Found", "consume", "found_lines", "summary"]

_LINE_EVERY_S = 5.0
"""Between two lines, where there is no terminal."""
_BAR_EVERY_S = 0.2
"""Between two drawings of the bar."""
_WORDS_SHOWN = 20
"""Prompts that the summary lists, most found first."""


class Found:
    """What a run found, by prompt."""

    def __init__(self) -> None:
        self.regions: dict[str, int] = {}
        """Regions by prompt, in the order in which prompts came; 0 where nothing was found."""
        self._tracks: dict[str, set[tuple[str, int]]] = {}
        self._came_s: tuple[float, float] | None = None  # of the first result and the last
        self._frames = 0

    def rate(self) -> float | None:
        """Frames per second from the first result to the last; None for less than two.

        The first one takes what a model needs once (loading, compiling), which says nothing of
        those after it.
        """
        if self._came_s is None or self._came_s[0] == self._came_s[1]:
            return None
        return (self._frames - 1) / (self._came_s[1] - self._came_s[0])

    def add(self, result: FrameResult) -> None:
        """Count one frame's regions."""
        now_s = time.monotonic()
        self._came_s = (self._came_s[0] if self._came_s else now_s, now_s)
        self._frames += 1
        instances = result.instances
        for text in result.prompts.texts:
            self.regions.setdefault(text, 0)
        for index, prompt_id in enumerate(instances.prompt_ids.tolist()):
            text = result.prompts[prompt_id].text
            self.regions[text] += 1
            if instances.track_ids is not None and instances.track_ids[index] > 0:
                track = (result.frame.stream, int(instances.track_ids[index]))
                self._tracks.setdefault(text, set()).add(track)

    def tracks(self, text: str) -> int:
        """How many tracks of all streams a prompt has."""
        return len(self._tracks.get(text, ()))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            text: {"regions": count, "tracks": self.tracks(text)}
            for text, count in self.regions.items()
        }


class _View(Protocol):
    every_s: float

    def show(self, stats: RunStats) -> None: ...

    def close(self) -> None: ...


class _Bar:
    """A bar with frames/s and time left; for a live stream the age of results."""

    every_s = _BAR_EVERY_S

    def __init__(self, console: Console, run: Pipeline) -> None:
        self._run = run
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("frames", total=None, numbers="")
        self._progress.start()

    def show(self, stats: RunStats) -> None:
        total = _total(self._run, stats)
        self._progress.update(
            self._task, total=total, completed=stats.published, numbers=_numbers(self._run, stats)
        )

    def close(self) -> None:
        self._progress.stop()


class _Lines:
    """A line every few seconds, for logs."""

    every_s = _LINE_EVERY_S

    def __init__(self, run: Pipeline) -> None:
        self._run = run

    def show(self, stats: RunStats) -> None:
        say(f"{_numbers(self._run, stats)}{self._time_left(stats)}")

    def _time_left(self, stats: RunStats) -> str:
        total = _total(self._run, stats)
        if total is None or not stats.published:
            return ""
        # At the mean rate so far.
        left_s = (total - stats.published) * stats.elapsed_s / stats.published
        return f", {left_s:.0f} s left"

    def close(self) -> None:
        """Nothing is held open."""


def _total(run: Pipeline, stats: RunStats) -> int | None:
    """Frames that are expected; None where that is not known, or has turned out to be too few."""
    total = run.frame_count
    return None if total is None or total < stats.published else total


def _numbers(run: Pipeline, stats: RunStats) -> str:
    total = _total(run, stats)
    of = "" if total is None else f"/{total}"
    rate = sum(stream.publish_hz for stream in stats.streams.values())
    # Frames of a file wait as long as they like: only those of a live stream have an age.
    ages = [stats.streams[name].age_ms_p50 for name in run.live_streams]
    known = [age for age in ages if age is not None]
    age = f", age {max(known):.0f} ms" if known else ""
    dropped = f", {stats.dropped} dropped" if stats.dropped else ""
    done = f"{stats.published}{of} frames" if of else counted(stats.published, "frame")
    return f"{done}, {rate:.1f} frames/s{age}{dropped}"


def consume(run: Pipeline, *, quiet: bool) -> Found:
    """Run to the end and show how it goes, on standard error; the first signal stops it.

    Args:
        run: A pipeline that is entered.
        quiet: Show nothing.

    Returns:
        What was found.

    Raises:
        PipelineError: a stage failed.
    """
    on_first_signal(run.stop)
    if quiet:
        return _watch(run, None)
    console = error_console()
    view: _View = _Bar(console, run) if console.is_terminal else _Lines(run)
    try:
        return _watch(run, view)
    finally:
        view.close()


def _watch(run: Pipeline, view: _View | None) -> Found:
    found = Found()
    shown_s = time.monotonic()
    for result in run:
        found.add(result)
        if view is not None and time.monotonic() - shown_s >= view.every_s:
            shown_s = time.monotonic()
            view.show(run.stats())
    if view is not None:
        view.show(run.stats())
    return found


def summary(stats: RunStats, found: Found) -> str:
    """One line about a finished run: frames, time, rate after the first frame, drops by cause."""
    rate = found.rate()
    speed = "" if rate is None else f", {rate:.1f} frames/s after the first"
    causes: dict[str, int] = {}
    for stream in stats.streams.values():
        _add(causes, stream.dropped)
    drops = "".join(f", {count} dropped ({cause})" for cause, count in sorted(causes.items()))
    return f"{counted(stats.published, 'frame')} in {stats.elapsed_s:.1f} s{speed}{drops}"


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for cause, count in more.items():
        total[cause] = total.get(cause, 0) + count


def found_lines(found: Found) -> list[str]:
    """Lines about what was found for each prompt, most regions first, and what was not found."""
    some = sorted((text for text, n in found.regions.items() if n), key=found.regions.__getitem__)
    # In the order of the prompts.
    none = [text for text, count in found.regions.items() if not count]
    lines = [
        f"  {text}: {counted(found.regions[text], 'region')},"
        f" {counted(found.tracks(text), 'track')}"
        for text in some[::-1][:_WORDS_SHOWN]
    ]
    if len(some) > _WORDS_SHOWN:
        lines.append(f"  and {len(some) - _WORDS_SHOWN} more prompts")
    if none:
        more = f" and {len(none) - _WORDS_SHOWN} more" if len(none) > _WORDS_SHOWN else ""
        lines.append(f"  nothing found: {', '.join(none[:_WORDS_SHOWN])}{more}")
    return lines
