"""What is seen of a job while it goes on: bars, lines for logs, or JSON for machines."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from ape_stream.cli.console import say
from ape_stream.closing import Closing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from ape_stream.batch.state import ClipState
    from ape_stream.batch.state import Progress as Standing

__all__ = ["Bars", "JsonLines", "Lines"]

_LINE_EVERY_S = 5.0
"""Between two lines, where there is no terminal."""
_WORDS = 4
"""Words in a line, most found first."""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _numbers(standing: Standing) -> str:
    """Frames, rate, time left, what was found."""
    if standing.loading:
        return "loading the model"
    of = "" if standing.expected is None else f"/{standing.expected}"
    left = "" if standing.left_s is None else f", {_duration(standing.left_s)} left"
    counts = sorted(standing.counts.items(), key=lambda item: -item[1])
    found = ", ".join(f"{count} {text}" for text, count in counts[:_WORDS] if count)
    # Nothing is found, and there is no rate, where only files are written again.
    rate = f", {standing.found_hz:.1f} frames/s" if standing.found_hz else ""
    return f"{standing.frames}{of} frames{rate}{left}" + (f"; {found}" if found else "")


def _clips(standing: Standing) -> str:
    over = sum(state.is_over for state in standing.clips)
    failed = sum(state.status == "failed" for state in standing.clips)
    return f"{over}/{len(standing.clips)} clips" + (f", {failed} failed" if failed else "")


def _clip_line(state: ClipState) -> str | None:
    """A line about a clip that is over; None for one that needs none."""
    if state.status == "failed":
        return f"failed: {state.clip.source}: {state.reason}"
    return f"not whole: {state.clip.source}: {state.problem}" if state.problem else None


class Bars(Closing):
    """A bar for all clips and one for each that is worked on.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=console,
        )
        self._all = self._bars.add_task("clips", total=None, numbers="")
        self._clips: dict[str, TaskID] = {}
        self._bars.start()

    def progress(self, standing: Standing) -> None:
        """Show it."""
        self._bars.update(
            self._all,
            total=standing.expected,
            completed=standing.frames,
            description=_clips(standing),
            numbers=_numbers(standing),
        )
        for state in standing.clips:
            self._show(state)

    def _show(self, state: ClipState) -> None:
        name = state.clip.name
        if state.status in ("finding", "writing"):
            done = state.written if state.status == "writing" else state.frames
            if name not in self._clips:
                self._clips[name] = self._bars.add_task(f"  {name}", total=None, numbers="")
            self._bars.update(
                self._clips[name], total=state.expected, completed=done, numbers=state.status
            )
        elif name in self._clips:
            self._bars.remove_task(self._clips.pop(name))

    def clip(self, state: ClipState) -> None:
        """Show a failure at once."""
        if (line := _clip_line(state)) is not None:
            self.note(line)

    def note(self, line: str) -> None:
        """Show a line above the bars."""
        self._bars.console.print(line, markup=False, highlight=False)

    def close(self, _: BaseException | None = None, /) -> None:
        """Leave the last state on the screen."""
        for task in self._clips.values():
            self._bars.remove_task(task)
        self._bars.stop()


class _Spaced(Closing, ABC):
    """Shows how a job stands every few seconds, and once more at its end."""

    def __init__(self) -> None:
        self._shown_s = time.monotonic()
        self._shown: Standing | None = None
        self._newest: Standing | None = None

    @abstractmethod
    def _show(self, standing: Standing) -> None: ...

    def progress(self, standing: Standing) -> None:
        """Show it, if it is time."""
        self._newest = standing
        if time.monotonic() - self._shown_s >= _LINE_EVERY_S:
            self._shown, self._shown_s = standing, time.monotonic()
            self._show(standing)

    def close(self, _: BaseException | None = None, /) -> None:
        """Show how it stands at the end, if what was shown is older."""
        # By identity: the clips of both are the same objects, as they are now.
        if self._newest is not None and self._shown is not None and self._newest is not self._shown:
            self._show(self._newest)


class Lines(_Spaced):
    """A line every few seconds."""

    def _show(self, standing: Standing) -> None:
        say(f"{_clips(standing)}, {_numbers(standing)}")

    def clip(self, state: ClipState) -> None:
        """Show a failure at once."""
        if (line := _clip_line(state)) is not None:
            say(line)

    def note(self, line: str) -> None:
        """Show a line."""
        say(line)


class JsonLines(_Spaced):
    """Lines of JSON on standard output: `progress`, `clip`, `note`, and `finished` at the end."""

    def _show(self, standing: Standing) -> None:
        _print(
            "progress",
            clips=len(standing.clips),
            clips_over=sum(state.is_over for state in standing.clips),
            clips_failed=sum(state.status == "failed" for state in standing.clips),
            frames=standing.frames,
            expected=standing.expected,
            frames_per_s=round(standing.found_hz, 2),
            left_s=None if standing.left_s is None else round(standing.left_s, 1),
            loading=standing.loading,
            found=standing.counts,
        )

    def clip(self, state: ClipState) -> None:
        """Print a clip that is done or failed."""
        about = state.found if state.found is not None else {"reason": state.reason}
        _print("clip", clip=state.clip.name, status=state.status, **about)

    def note(self, line: str) -> None:
        """Print a line."""
        _print("note", text=line)


def _print(event: str, **values: Any) -> None:
    typer.echo(json.dumps({"event": event, **values}))
