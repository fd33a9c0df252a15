"""The clock of a stream: the times that a sender gives, made to rise over restarts and outages.

A sender's clock may begin again (a recorder's next file, a camera that was switched off), stand
still (an encoder that was paused), or say nothing at all. The stream's clock goes on:

  * frames that are read or pushed at any speed go on one step after the last one, or after as long
    as the sender was away;
  * for a live stream, the arrival of the frames is a second clock. `arrived - time` is least for
    the frames that were delayed least; after an outage the first frame is put on that line, so
    that the outage counts once, in full, however the sender's clock went on.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import Final, TypeVar

from ape_stream.types import Frame

__all__ = ["LONGEST_S", "StreamClock", "checked_s"]

FrameT = TypeVar("FrameT", bound=Frame)

LONGEST_S: Final = 1e10
"""Times from here on (300 years) are refused: seconds since 1970 pass, milliseconds do not."""

_REMEMBERED: Final = 256
"""Frames whose delay is remembered: about 10 s, within which two machines' clocks agree."""

_AHEAD_S: Final = 1.0
"""A frame this far ahead of its arrival belongs to another time line."""


def checked_s(time_s: float) -> float:
    """The same time, seconds.

    Raises:
        ValueError: it is negative, not a number, or `LONGEST_S` or more.
    """
    if not 0 <= time_s < LONGEST_S:
        raise ValueError(f"a frame's time is 0 to {LONGEST_S:g} s, got {time_s!r}")
    return time_s


class StreamClock:
    """Times of one stream's frames, seconds, in order.

    Args:
        step_s: Nominal time from frame to frame; None: as it was last.
        live: Whether frames come as they happen, so that arrivals are a clock.
        jitter_s: A time that lies at most this far back is disorder, not a restart: the frame
            comes a tenth of a step after the last one.
        leap_s: A time further ahead of the last one is a restart too.
        agree_s: Over an outage, a sender's clock that is at most this far from the arrival is
            believed.
    """

    def __init__(
        self,
        *,
        step_s: float | None = None,
        live: bool = False,
        jitter_s: float = 0.0,
        leap_s: float = math.inf,
        agree_s: float = 0.1,
    ) -> None:
        self.restarts = 0
        """How often the sender's clock began again."""
        self._nominal_s = step_s
        self._step_s = step_s or 1 / 30
        self._live = live
        self._jitter_s = jitter_s
        # A slow sender (a time lapse of one frame a minute) steps further than `leap_s` each time.
        self._leap_s = max(leap_s, 10 * self._step_s)
        self._agree_s = agree_s
        self._shift_s = 0.0  # stream's time = sender's time + shift
        self._last_s: float | None = None
        self._arrived_s = 0.0
        self._delays = _Delays()
        self._interrupted = False
        self._early_s = 0.0

    def interrupt(self, early_s: float = 0.0) -> None:
        """Say that the sender was silent: the next frame's time is checked against its arrival.

        Args:
            early_s: How much sooner than any frame before the next one may arrive.
        """
        self._interrupted = True
        self._early_s = early_s

    def time_s(
        self, given_s: float | None, arrived_s: float | None = None, *, awaited: bool = True
    ) -> float:
        """The stream's time of the next frame; never before that of the last one.

        Args:
            given_s: What the sender says; None where it says nothing.
            arrived_s: When the frame arrived, on any steady clock; None where that means nothing.
            awaited: Whether the reader had to wait for it: it is then as fresh as can be.

        Raises:
            ValueError: `given_s` is out of range; the frame does not count.
        """
        given_s = None if given_s is None else checked_s(given_s)
        time_s = self._placed_s(given_s, arrived_s, awaited=awaited)
        # Without a nominal rate, the newest step is the best guess of the next one.
        if self._last_s is not None and self._nominal_s is None and time_s > self._last_s:
            self._step_s = time_s - self._last_s
        self._last_s = time_s
        if arrived_s is not None:
            self._arrived_s = arrived_s
            # Measured on the stream's clock, so delays before and after a restart can be compared.
            self._delays.add(arrived_s - time_s, awaited=awaited)
        return time_s

    def placed(self, frame: FrameT, arrived_s: float | None = None) -> FrameT:
        """The frame at its time on the stream's clock, in the segment that it belongs to.

        Args:
            frame: With the time that the sender gave it.
            arrived_s: See `time_s`.

        Raises:
            ValueError: its time is out of range; the frame does not count.
        """
        time_s = self.time_s(frame.time_s, arrived_s)
        return replace(frame, time_s=time_s, segment=self.restarts)

    def _placed_s(self, given_s: float | None, arrived_s: float | None, *, awaited: bool) -> float:
        last_s = self._last_s
        # The first frame defines the clock; nothing is there yet to compare it with.
        if last_s is None:
            return given_s or 0.0
        if given_s is None:
            # `_resumed_s` takes the outage as settled. But its time came from the arrival, not from
            # the sender, so the sender's next time must be checked against the arrival again.
            time_s = self._resumed_s(last_s, arrived_s, awaited=awaited)
            self._interrupted = True
            return time_s
        time_s = given_s + self._shift_s
        if self._is_broken(last_s, time_s, arrived_s, awaited=awaited):
            # A new time line: shift it so that this frame lands where the stream goes on.
            resumed_s = self._resumed_s(last_s, arrived_s, awaited=awaited)
            self._shift_s += resumed_s - time_s
            self._delays.freeze()
            self.restarts += 1
            return resumed_s
        # Disorder within the jitter: rise, but by so little that the frames after it need no
        # change.
        if time_s <= last_s and self._jitter_s:
            return last_s + self._step_s / 10
        return time_s

    def _resumed_s(self, last_s: float, arrived_s: float | None, *, awaited: bool) -> float:
        """Where the stream goes on without a time of the sender's."""
        if arrived_s is None:
            return last_s + self._step_s
        if not self._live:
            # Read or pushed: arrivals say only how long the sender was away, not when it captured.
            return last_s + max(self._step_s, arrived_s - self._arrived_s)
        # Live: the frame was captured at its arrival less the least delay ever seen. After an
        # outage the first frame counts as "awaited" only because of the outage, so compare it with
        # all.
        least_s = self._delays.least_s(awaited=awaited and not self._interrupted)
        self._interrupted = False
        return max(last_s + self._step_s / 10, arrived_s - least_s)  # rises in any case

    def _is_broken(
        self, last_s: float, time_s: float, arrived_s: float | None, *, awaited: bool
    ) -> bool:
        """Whether the sender's clock says something else than before."""
        if time_s < last_s - self._jitter_s or time_s > last_s + self._leap_s:
            return True
        if arrived_s is None or not self._live:
            return False
        # Lateness against the least delayed frame: above 0 it came late, below 0 earlier than any
        # frame before on the same clock.
        expected = awaited and not self._interrupted
        late_s = arrived_s - time_s - self._delays.least_s(awaited=expected)
        if self._interrupted:
            # Over an outage a clock that agrees with the arrival went on meanwhile: not broken.
            agrees = -self._agree_s - self._early_s <= late_s <= self._agree_s
            self._interrupted = not agrees
            return not agrees
        # It claims to be captured over a second after it arrived, and leapt there in one step.
        return awaited and late_s < -_AHEAD_S and time_s > last_s + _AHEAD_S


class _Delays:
    """How long frames were on their way, on a scale of its own."""

    def __init__(self) -> None:
        self._all: deque[float] = deque(maxlen=_REMEMBERED)
        self._awaited: deque[float] = deque(maxlen=_REMEMBERED)
        self._frozen = False

    def add(self, delay_s: float, *, awaited: bool) -> None:
        """Remember a frame's delay.

        Where frames come in bundles (HLS), the first of each was waited for and is late; it is
        compared with other first ones alone.
        """
        if self._frozen:
            return
        self._all.append(delay_s)
        if awaited:
            self._awaited.append(delay_s)

    def freeze(self) -> None:
        """Learn no more: later times were made from these delays, and would add up errors."""
        self._frozen = True

    def least_s(self, *, awaited: bool) -> float:
        """The least delay, of all frames or of those that were waited for."""
        # None was awaited so far: the least of all frames is the next best.
        return min((self._awaited if awaited else None) or self._all)
