"""What is handed out of a live stream: fresh frames, each once, over interruptions."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from ape_stream.errors import SourceError
from ape_stream.sources.clock import StreamClock
from ape_stream.sources.video.arrivals import Seen
from ape_stream.sources.video.connection import Connection
from ape_stream.sources.video.faults import Faults
from ape_stream.sources.video.playlist import await_segment
from ape_stream.sources.video.timestamps import TimedFrame

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from ape_stream.sources.video.arrivals import Arrival
    from ape_stream.sources.video.opening import Address, Opened

__all__ = ["LiveReader"]

# Between attempts to connect, seconds: doubled each time, as in exponential back-off.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0

_CATCH_UP_S: Final = 2.0
"""A stream that is decoded no faster than it comes never catches up: then old frames will do."""

_HELD: Final = 32
"""Frames of a backlog that are kept in case they are the last."""

_JITTER_S, _LEAP_S = 0.1, 10.0
"""A time at most this far back is disorder, one further ahead a restart; see `StreamClock`."""
_AGREE_S, _PLAYLIST_AGREE_S = 0.1, 0.5
"""How far two arrivals may differ; a playlist is read again every segment or half segment."""


class LiveReader:
    """Reads a live stream, connection after connection.

    After an interruption the first frame is the newest that there is: FFmpeg's probing and the
    sender's own buffer bring a backlog first.

    Args:
        address: Where it comes from.
        read_timeout_s: Silence after which a connection counts as lost, seconds.
        reconnect_s: How long it is tried again, seconds; 0 takes its end for the end.
        left: Set once nobody wants more.
    """

    def __init__(
        self,
        address: Address,
        read_timeout_s: float,
        reconnect_s: float,
        left: threading.Event,
    ) -> None:
        self._address = address
        self._read_timeout_s = read_timeout_s
        self._reconnect_s = reconnect_s
        self._left = left
        self._seen = Seen()
        self._faults = Faults(address.shown)
        self._clock: StreamClock | None = None
        # False while the backlog after an interruption is skipped: frames are held until the newest
        # one.
        self._fresh = True
        self._usual_wait_s = 0.0
        self._first: Arrival | None = None
        self._last: Arrival | None = None
        self._heard_s = time.monotonic()

    def frames(self, opened: Opened | None) -> Iterator[TimedFrame]:
        """Frames until the stream ends, stays away, or is left.

        Args:
            opened: The first connection's container where it is open already.

        Raises:
            SourceError: no frame came for `reconnect_s`.
        """
        pause_s = FIRST_PAUSE_S
        while not self._left.is_set():
            # Only the first container may be open already.
            connection = self._connect(opened)
            opened = None
            # Compared below: the pause starts over only after a connection that gave a frame.
            begun = self._heard_s
            try:
                yield from self._handed_out(connection)
            finally:
                connection.leave()
            if self._was_download(connection):
                return
            self._give_up(connection.ended_by)
            if not self._reconnect_s:
                return
            if not self._left.is_set():
                self._faults.note_loss(connection.ended_by, self._heard_s, self._reconnect_s)
            pause_s = FIRST_PAUSE_S if self._heard_s > begun else min(2 * pause_s, LONGEST_PAUSE_S)
            # Jittered, so that many cameras of one server do not all come back at the same moment.
            self._left.wait(pause_s * random.uniform(0.7, 1.3))  # noqa: S311 (not a secret)

    def _connect(self, opened: Opened | None) -> Connection:
        again = self._clock is not None
        is_playlist = self._last is not None and self._last.sender.is_playlist
        if again:
            self._seen.remember()
            self._interrupt()

        def opener() -> Opened:
            if again and is_playlist:
                await_segment(self._address.spec, self._left, self._read_timeout_s)
            return opened or self._address.open(live=True, again=again)

        return Connection(opener, self._seen, self._read_timeout_s, self._faults)

    def _handed_out(self, connection: Connection) -> Iterator[TimedFrame]:
        held: deque[Arrival] = deque(maxlen=_HELD)
        until_s: float | None = None
        self._first = None
        for arrival in connection.arrivals(self._left):
            if arrival is not None and not arrival.seen:
                self._first, self._last = self._first or arrival, arrival
                held.append(arrival)
                # Skipping ends at the latest here, counted from the backlog's first frame.
                until_s = until_s or arrival.arrived_s + _CATCH_UP_S
                if self._notice_stall(arrival):
                    continue
            # Still in the backlog: hold, and look at the next frame.
            if not held or not (self._fresh or self._caught_up(arrival, until_s)):
                continue
            self._fresh, until_s = True, None
            # All older ones are skipped on purpose; the clock accounts for their time.
            newest = held.pop()
            held.clear()
            yield self._timed(newest)
        while held and not self._left.is_set():  # it ended before it caught up
            arrival = held.popleft()
            # A late frame is from before the silence: stale where the stream goes on, the rest of
            # the recording where it does not.
            if not (arrival.late and self._reconnect_s):
                yield self._timed(arrival)

    def _notice_stall(self, arrival: Arrival) -> bool:
        """Whether the sender was silent; what comes next may be old, as after an interruption.

        FFmpeg's last frame before the silence comes out with the first one after it.
        """
        if not (self._was_long(arrival) if arrival.sender.is_playlist else arrival.late):
            return False
        self._interrupt()
        return True

    def _interrupt(self) -> None:
        """Note a silence; a playlist may be read at a better moment after it than before."""
        self._fresh = False
        if self._clock is not None:
            self._clock.interrupt(early_s=self._usual_wait_s)

    def _was_long(self, arrival: Arrival) -> bool:
        """Whether a playlist made wait for longer than from segment to segment."""
        # Segment lengths vary: twice the longest wait so far, and a second for the request itself.
        # Before the first wait is known, `inf` makes nothing long.
        if arrival.waited_s > 1 + 2 * (self._usual_wait_s or math.inf):
            return True
        self._usual_wait_s = max(self._usual_wait_s, arrival.waited_s)
        return False

    def _caught_up(self, arrival: Arrival | None, until_s: float | None) -> bool:
        """Whether the newest frame is as fresh as it gets."""
        if arrival is None:  # the sender has no more for now
            return True
        if arrival.awaited and not arrival.sender.is_playlist:
            return True
        return until_s is not None and arrival.arrived_s > until_s

    def _was_download(self, connection: Connection) -> bool:
        """Whether a web server sent a whole file: faster than it lasts, and then its end."""
        first, last = self._first, self._last
        if not (self._address.is_web and connection.ended_well and first and last):
            return False
        lasts_s = (last.given_s or 0.0) - (first.given_s or 0.0)
        # A live stream arrives in the time that it lasts; a download in less than half of it.
        return lasts_s > 2 * (last.arrived_s - first.arrived_s)

    def _timed(self, arrival: Arrival) -> TimedFrame:
        if self._clock is None:
            # One clock over all connections: the stream's time goes on.
            self._clock = _clock(arrival)
        self._faults.note_frame()
        self._heard_s = time.monotonic()
        time_s = self._clock.time_s(arrival.given_s, arrival.arrived_s, awaited=arrival.awaited)
        return TimedFrame(arrival.frame, arrival.aspect, time_s, arrival.arrived_s)

    def _give_up(self, reason: str) -> None:
        """Raise where a lost stream is not to be tried again."""
        silent_s = time.monotonic() - self._heard_s
        gone = silent_s > self._reconnect_s > 0
        if gone or (self._clock is None and not self._reconnect_s):
            raise SourceError(f"{self._address.shown} gave no frame for {silent_s:.0f} s: {reason}")


def _clock(first: Arrival) -> StreamClock:
    sender = first.sender
    return StreamClock(
        step_s=sender.step_s,
        live=True,
        jitter_s=_JITTER_S,
        leap_s=_LEAP_S if sender.may_leap else math.inf,
        agree_s=_PLAYLIST_AGREE_S if sender.is_playlist else _AGREE_S,
    )
