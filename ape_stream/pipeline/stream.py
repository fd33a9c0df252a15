"""One stream on its way to the model: source, channel, tracker and counters."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ape_stream.channel import Channel
from ape_stream.errors import ConfigError
from ape_stream.sources.clock import LONGEST_S
from ape_stream.stats import StageMeter, StreamCounters

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from ape_stream.pipeline.tracking import StreamTracker
    from ape_stream.protocols import Source
    from ape_stream.types import Frame

__all__ = ["BAD_TIME", "SourceStream", "check_names"]

BAD_TIME = "bad time"
"""Cause of a drop: the frame's time is negative, not finite or too large."""

_log = logging.getLogger("ape_stream")


class SourceStream:
    """Reads one source into a channel.

    Args:
        source: The stream, already entered when `ingest` runs.
        tracker: Its own tracker, or None to give no track ids.
        newest_wins: True drops the waiting frame for a newer one; False makes the source wait;
            None does the former where the source is live.
        buffer: Frames that may wait where none is dropped.
        guard: The lock of the whole pipeline.
    """

    def __init__(
        self,
        source: Source,
        tracker: StreamTracker | None,
        *,
        newest_wins: bool | None,
        buffer: int,
        guard: threading.Condition,
    ) -> None:
        self.source = source
        self.tracker = tracker
        self.name = source.name
        self.counters = StreamCounters()
        self.reading = StageMeter()
        self.watchers: list[Callable[[Frame], None]] = []
        """Called with each frame once it is in the channel."""
        # Drops are reported under the guard: the counters change in one step with the channel.
        self.channel: Channel[Frame] = Channel(
            buffer, guard=guard, on_drop=lambda _frame, cause: self.counters.drop(cause)
        )
        self._newest_wins = newest_wins
        # Of the newest frame that the source gave: by these a step back is noticed.
        self._last_time_s = 0.0
        self._source_segment = 0

    def settle(self) -> None:
        """Choose what happens to waiting frames: an entered source knows whether it is live."""
        chosen = self.source.live if self._newest_wins is None else self._newest_wins
        self.channel.newest_wins = chosen
        if chosen:
            # Only the newest is of use; a longer queue would only make results older.
            self.channel.capacity = 1

    def ingest(self) -> None:
        """Bring the source's frames into the channel until it ends; runs in its own thread.

        Raises:
            Aborted: the run is over.
            Exception: what the source raised.
        """
        guard = self.channel.guard
        start = time.monotonic()
        for frame in self.source:
            # Under one guard from here to the channel: a frame is never captured and in no stage.
            with guard:
                self.reading.work.add(time.monotonic() - start)
                self.counters.capture()
                good = 0.0 <= frame.time_s < LONGEST_S  # False for NaN, too
                if good:
                    frame = self._stamped(frame)  # noqa: PLW2901 (the same frame, with its times)
                    self.channel.put(frame)
                else:
                    self._refuse(frame)
            if good:
                for watch in self.watchers:
                    watch(frame)
            start = time.monotonic()

    def _refuse(self, frame: Frame) -> None:
        self.counters.drop(BAD_TIME)
        if self.counters.dropped[BAD_TIME] == 1:
            _log.warning(
                "%s #%d has the time %g s: it is dropped, as will be others outside 0..%g s",
                self.name,
                frame.index,
                frame.time_s,
                LONGEST_S,
            )

    def _stamped(self, frame: Frame) -> Frame:
        """The frame with what a source may not know: when it was captured, and its segment.

        A source may have its own clock that never steps back, and count segments itself.
        """
        if frame.time_s < self._last_time_s or frame.segment != self._source_segment:
            self.counters.restarts += 1
            _log.info("%s: the clock stepped back before #%d; tracks end", self.name, frame.index)
        self._last_time_s, self._source_segment = frame.time_s, frame.segment
        # A source that knows better (a network source) has set it; 0 means that it did not.
        captured_ns = frame.captured_ns or time.monotonic_ns()
        segment = self.counters.restarts
        if (captured_ns, segment) == (frame.captured_ns, frame.segment):
            return frame
        return replace(frame, captured_ns=captured_ns, segment=segment)


def check_names(sources: Sequence[Source]) -> None:
    """Refuse a run without a source, or with two of one name.

    Raises:
        ConfigError: it is one.
    """
    if not sources:
        raise ConfigError("no source given: name a file, a device or a URL")
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two sources are called {name!r}: give each its own name")
