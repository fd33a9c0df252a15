"""A frame's time as its container has it, by the rule of FFmpeg's `best_effort_timestamp`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ape_stream.sources.clock import LONGEST_S

if TYPE_CHECKING:
    from fractions import Fraction

    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["TimedFrame", "Timestamps", "step_s"]


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A decoded frame on its way to becoming an image."""

    frame: VideoFrame
    """As the decoder gave it."""
    aspect: Fraction
    """Width over height of a pixel."""
    time_s: float
    """Seconds on the stream's clock."""
    arrived_s: float
    """`time.monotonic()` when its last packet was read."""


def step_s(stream: VideoStream) -> float | None:
    """Nominal time from frame to frame, seconds; None where the stream has no rate."""
    rate = stream.guessed_rate or stream.average_rate
    return float(1 / rate) if rate else None


class Timestamps:
    """Times of one stream's frames, in the order in which they are shown.

    A container may lack presentation times (AVI, raw H.264) or decoding times, and either may be
    wrong. Whichever stood still or turned back less often so far is believed
    (libavcodec/decode.c, `guess_correct_pts`).
    """

    def __init__(self, stream: VideoStream) -> None:
        self._base = stream.time_base
        self._pts = _Rising()
        self._dts = _Rising()
        self._start_s = 0.0
        self._first = True

    def time_s(self, frame: VideoFrame) -> float | None:
        """Seconds, or None where the container says nothing or nonsense.

        A container that begins before 0 is moved to begin at 0.
        """
        # A missing stamp is replaced by the other one, only so that its series goes on.
        self._dts.see(frame.pts if frame.dts is None else frame.dts, given=frame.dts is not None)
        self._pts.see(frame.dts if frame.pts is None else frame.pts, given=frame.pts is not None)
        # Presentation time first; decoding time where it is missing or has proven less reliable.
        stamp = frame.pts
        if stamp is None or (frame.dts is not None and self._pts.faults > self._dts.faults):
            stamp = frame.dts
        if stamp is None or self._base is None:
            return None
        time_s = float(stamp * self._base)
        if abs(time_s) >= LONGEST_S:
            return None
        if self._first:
            self._start_s, self._first = min(time_s, 0.0), False
        # What lies before the first frame is for the stream's clock to put right.
        return max(0.0, time_s - self._start_s)


class _Rising:
    """How often a series of stamps failed to rise."""

    def __init__(self) -> None:
        self.faults = 0
        self._last: float = -math.inf

    def see(self, stamp: int | None, *, given: bool) -> None:
        """The next stamp; one that was not given only stands in for it."""
        if stamp is None:
            return
        self.faults += given and stamp <= self._last  # bool counts as 0 or 1
        self._last = stamp
