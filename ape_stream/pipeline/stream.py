"""One stream on its way to the model: source, channel, tracker and books."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ape_stream.channel import Channel
from ape_stream.protocols import EndsTracks
from ape_stream.stats import StageMeter, StreamLedger

if TYPE_CHECKING:
    import threading

    from ape_stream.protocols import Source, Tracker
    from ape_stream.types import Frame, Instances

__all__ = ["Port"]


class Port:
    """Where the frames of one source come in.

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
        tracker: Tracker | None,
        *,
        newest_wins: bool | None,
        buffer: int,
        guard: threading.Condition,
    ) -> None:
        self.source = source
        self.tracker = tracker
        self.name = source.name
        self.ledger = StreamLedger()
        self.reading = StageMeter()
        self.channel: Channel[Frame] = Channel(
            buffer, guard=guard, on_drop=lambda _frame, cause: self.ledger.drop(cause)
        )
        self._newest_wins = newest_wins
        self._segment = 0

    def settle(self) -> None:
        """Choose what happens to waiting frames: an entered source knows whether it is live."""
        chosen = self.source.live if self._newest_wins is None else self._newest_wins
        self.channel.newest_wins = chosen
        if chosen:
            self.channel.capacity = 1

    def track(self, frame: Frame, found: Instances) -> Instances:
        """What was found in the stream's next frame, with track ids where there is a tracker."""
        if self.tracker is None:
            return found
        if frame.segment != self._segment:
            self._segment = frame.segment
            if isinstance(self.tracker, EndsTracks):
                self.tracker.end_tracks()
        return self.tracker.update(found, frame.time_s)

    def ingest(self) -> None:
        """Bring the source's frames into the channel until it ends; runs in its own thread.

        Raises:
            Aborted: the run is over.
            Exception: what the source raised.
        """
        guard = self.channel.guard
        start = time.monotonic()
        for frame in self.source:
            with guard:
                self.reading.work.add(time.monotonic() - start)
                self.ledger.capture()
                self.channel.put(_stamped(frame))
            start = time.monotonic()


def _stamped(frame: Frame) -> Frame:
    """A source that does not know when it captured a frame delivered it just now."""
    return frame if frame.captured_ns else replace(frame, captured_ns=time.monotonic_ns())
