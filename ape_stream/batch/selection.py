"""Which frames of a clip are worked on: a range of time, and how many of it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from ape_stream.errors import UsageError

__all__ = ["Chooser", "Selection", "parse_time"]

_CLOCK: Final = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")
_ROUNDING_S: Final = 1e-6
"""Times are sums of fractions: a frame this close before a limit counts as at it."""


def parse_time(text: str) -> float:
    """Seconds from "90", "1:30", "1:01:30.5".

    Raises:
        UsageError: it is no time.
    """
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no time: give seconds (90.5) or h:m:s (1:01:30.5)")
    hours, minutes, seconds = match.groups(default="0")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


@dataclass(frozen=True, slots=True)
class Selection:
    """A range of time, and which frames of it; times count from the clip's first frame."""

    start_s: float = 0.0
    """Frames before this time are left out, seconds, at least 0."""
    end_s: float | None = None
    """Frames at this time and after it are left out, seconds; None reads to the end."""
    stride: int = 1
    """Every how many-th frame is taken, from the first of the range; at least 1."""
    fps: float | None = None
    """Frames a second that are taken: the first of each 1 / fps s; None takes all."""
    max_frames: int | None = None
    """Most frames of a clip; None for no limit."""

    def __post_init__(self) -> None:
        """Refuse what selects nothing or contradicts itself.

        Raises:
            UsageError: it does.
        """
        if self.start_s < 0 or (self.end_s is not None and self.end_s <= self.start_s):
            raise UsageError(f"the range ends at {self.end_s} s, before it starts: {self.start_s}")
        if self.stride < 1 or (self.max_frames is not None and self.max_frames < 1):
            raise UsageError("--stride and --max-frames are at least 1")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise UsageError(f"--fps is a number above 0, got {self.fps}")
        if self.fps is not None and self.stride > 1:
            raise UsageError("give --stride or --fps, not both")

    def estimate(self, frames: int | None, rate: float | None) -> int | None:
        """About how many frames of a clip it takes; None where that cannot be known.

        Args:
            frames: Frames of the whole clip.
            rate: Its frames a second.
        """
        if frames is None:
            return self.max_frames
        count = float(frames)
        if rate:
            count -= self.start_s * rate
            if self.end_s is not None:
                count = min(count, (self.end_s - self.start_s) * rate)
            if self.fps is not None:
                count *= min(1.0, self.fps / rate)
        count = max(0.0, math.ceil(count / self.stride))
        return int(count if self.max_frames is None else min(count, self.max_frames))


class Chooser:
    """Asked for every frame of a clip in order, says which are taken.

    Args:
        selection: The choice.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._first_s: float | None = None
        self._in_range = 0
        self._slot = -1
        self.taken = 0
        """Frames taken so far."""
        self.over = False
        """Whether no later frame can be taken."""

    def take(self, time_s: float) -> bool:
        """Whether the next frame, at this time of its stream, is taken."""
        if self._first_s is None:
            self._first_s = time_s
        at_s = time_s - self._first_s + _ROUNDING_S
        chosen = self._selection
        if self.over or (chosen.end_s is not None and at_s >= chosen.end_s):
            self.over = True  # times rise from frame to frame
            return False
        if at_s < chosen.start_s or not self._is_due(at_s - chosen.start_s):
            return False
        self.taken += 1
        self.over = self.taken == chosen.max_frames
        return True

    def _is_due(self, since_s: float) -> bool:
        """Whether stride and rate take a frame of the range."""
        position = self._in_range
        self._in_range += 1
        if self._selection.fps is None:
            return position % self._selection.stride == 0
        slot = math.floor(since_s * self._selection.fps)
        is_first, self._slot = slot > self._slot, slot
        return is_first
