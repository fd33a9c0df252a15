"""How a run stands: its outcome and its time, why it failed, and what is missing of its streams."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from ape_stream.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ape_stream.errors import PipelineError, TruncatedError
    from ape_stream.pipeline.stream import SourceStream

__all__ = ["FAILED", "STOPPED", "Outcome", "RunState"]

Outcome = Literal["running", "finished", "truncated", "stopped", "failed"]
"""How a run stands; `truncated`: finished, but a source broke off before its own end."""

STOPPED = "stopped"
"""Cause of a drop: the run was stopped."""
FAILED = "failed"
"""Cause of a drop: a stage failed."""


class RunState:
    """The state that all threads of a run share; every access happens under the guard."""

    def __init__(self) -> None:
        self.outcome: Outcome = "running"
        self.failure: PipelineError | None = None
        """The first failure of a stage."""
        self.truncated: list[TruncatedError] = []
        """Why sources broke off early."""
        self.read_to_end: set[str] = set()
        """Names of the streams whose source has ended by itself."""
        self._started_s: float | None = None
        self._ended_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began, up to its end."""
        if self._started_s is None:
            return 0.0
        return (self._ended_s or time.monotonic()) - self._started_s

    def start_clock(self) -> None:
        """The run begins."""
        self._started_s = time.monotonic()

    def stop_clock(self) -> None:
        """The run is over; the first end counts."""
        self._ended_s = self._ended_s or time.monotonic()

    def end(self, outcome: Outcome) -> None:
        """Settle the outcome; the first one stays."""
        if self.outcome == "running":
            self.outcome = outcome

    def fail(self, error: PipelineError) -> None:
        """Keep the first failure, unless the run has ended otherwise before."""
        # After a stop, threads may fail because their source was closed: that is no failure.
        if self.failure is None and self.outcome == "running":
            self.failure = error
        self.end("failed")

    def finish(self) -> None:
        """All results were published."""
        # May overwrite "stopped": a stop that came after the last result changed nothing.
        self.outcome = "truncated" if self.truncated else "finished"

    def missing(
        self,
        streams: Iterable[SourceStream],
        error: BaseException | None,
        *,
        stopped: bool,
    ) -> BaseException | None:
        """Why results are missing, for the sinks; None where none are.

        A live stream has no end that could be missed, and leaving the loop over results early is
        the caller's own choice.

        Args:
            streams: All of the run.
            error: What ended the `with` statement or the loop, if anything did.
            stopped: Whether `stop` was called before.
        """
        unread = [stream.name for stream in streams if self._is_unread(stream)]
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            return error if unread else None
        if error is not None and not isinstance(error, GeneratorExit):
            return error
        if self.truncated:
            return self.truncated[0]
        if stopped and unread:
            return StoppedError(f"stopped before the end of {', '.join(unread)}")
        return None

    def _is_unread(self, stream: SourceStream) -> bool:
        """Whether a stream has an end which the results do not reach."""
        read = stream.name in self.read_to_end and not stream.counters.dropped.get(STOPPED)
        return not stream.source.live and not read
