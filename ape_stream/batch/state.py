"""How a job stands: each clip, and all of them together."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ape_stream.batch.clips import Clip

__all__ = [
    "ATTEMPTS",
    "ClipState",
    "Listener",
    "Progress",
    "Rate",
    "Status",
    "left_s",
    "time_left",
]

ATTEMPTS: Final = 3
"""Tries of a clip that costs a worker at the same frame each time."""
MOST_ATTEMPTS: Final = 10
"""Tries of a clip that costs a worker somewhere else each time, as where others kill workers."""
_NEAR: Final = 8
"""Frames: a worker that reads ahead does not die at the very frame that kills it."""

Status = Literal["waiting", "finding", "found", "writing", "done", "failed"]


@dataclass(slots=True)
class ClipState:
    """One clip while the job goes on."""

    clip: Clip
    """The clip."""
    status: Status = "waiting"
    """Where it is on its way."""
    expected: int | None = None
    """Frames that it has, as far as is known."""
    frames: int = 0
    """Frames whose results are on the disk or on the way there."""
    written: int = 0
    """Frames in its final files so far."""
    attempts: list[dict[str, Any]] = field(default_factory=list)
    """What failed: "during", "reason", "at" (frame); the last one is why the clip failed."""
    found: dict[str, Any] | None = None
    """What was found, once it is done; see `Job.finish`."""
    probed: bool = False
    """Whether the answer has come, if only that it is not known."""
    spans: list[tuple[int, int | None]] = field(default_factory=list)
    """First shard and the one after the last, of what no worker makes yet; None: to the end."""
    parts: int = 0
    """Workers that are making its shards now."""

    def take_end(self, end: Mapping[str, Any] | None) -> bool:
        """Become "found" with its length, if there is an end; returns whether there was.

        Args:
            end: Of `ShardFolder.end`.
        """
        if end is None:
            return False
        self.status, self.expected, self.frames = "found", end["frames"], end["frames"]
        return True

    @property
    def reason(self) -> str:
        """Why it failed."""
        return str(self.attempts[-1]["reason"]) if self.attempts else ""

    @property
    def problem(self) -> str | None:
        """Why it is not whole though it is done."""
        return None if self.found is None else self.found.get("problem")

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be done with it."""
        return self.status in ("done", "failed")

    @property
    def alike(self) -> int:
        """How many of the latest attempts ended in the same step and at about the same frame."""
        return sum(1 for _ in takewhile(self._is_like_the_last, reversed(self.attempts)))

    def _is_like_the_last(self, attempt: dict[str, Any]) -> bool:
        last = self.attempts[-1]
        apart: int = attempt.get("at", 0) - last.get("at", 0)
        return abs(apart) <= _NEAR and attempt["during"] == last["during"]

    @property
    def given_up(self) -> bool:
        """Whether no other try is made."""
        final = any(attempt.get("final") for attempt in self.attempts)
        return final or self.alike >= ATTEMPTS or len(self.attempts) >= MOST_ATTEMPTS


class Rate:
    """Frames a second since the first one; what is counted before `start` does not count."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._count = 0

    def start(self) -> None:
        """Begin to count, if it has not begun."""
        if self._since_s is None:
            self._since_s = time.monotonic()

    def add(self, count: int) -> None:
        """Count frames."""
        self.start()
        self._count += count

    @property
    def count(self) -> int:
        """Frames counted."""
        return self._count

    @property
    def hz(self) -> float:
        """Frames a second; 0 before the first."""
        if self._since_s is None:
            return 0.0
        return self._count / max(1e-3, time.monotonic() - self._since_s)

    def time_for(self, frames: float) -> float | None:
        """Seconds for so many more; None before the first was counted."""
        if not frames:
            return 0.0
        return frames / self.hz if self._count else None


def time_left(finding: float | None, writing: float | None) -> float | None:
    """Seconds for both, which go on at once; each is of `Rate.time_for`.

    Before the first frame is written, it may take as long as finding; after finding, nobody knows.
    """
    if finding is None or writing is None:
        return finding or None
    return max(finding, writing)


def left_s(states: Sequence[ClipState], finding: Rate, writing: Rate) -> float | None:
    """Seconds until all clips are over; None while no length is known.

    Clips of unknown length count like the others.
    """
    known = [state.expected for state in states if state.expected is not None]
    if not known:
        return None
    typical = sum(known) / len(known)
    to_find = to_write = 0.0
    for state in states:
        if not state.is_over:
            length = max(typical if state.expected is None else state.expected, state.frames)
            to_find += length - state.frames
            to_write += length - state.written
    return time_left(finding.time_for(to_find), writing.time_for(to_write))


@dataclass(frozen=True, slots=True)
class Progress:
    """All clips together at one moment."""

    clips: Sequence[ClipState]
    """Every clip."""
    found_hz: float
    """Frames a second through the model, loading excluded."""
    left_s: float | None
    """Seconds until the end at the present rates; None while that is not known."""
    frames: int
    """Frames done by the model, those of earlier runs too."""
    expected: int | None
    """Frames of all clips; None while that is not known."""
    loading: bool
    """Whether the model is being loaded, and nothing else happens."""
    counts: dict[str, int]
    """What was found so far, by word; see `Job.finish`."""


class Listener(Protocol):
    """Gets the progress of a job, in the thread that runs it."""

    def progress(self, progress: Progress) -> None:
        """Called several times a second."""
        ...

    def clip(self, state: ClipState) -> None:
        """A clip is done or failed."""
        ...

    def note(self, line: str) -> None:
        """Something worth a line happened."""
        ...
