"""How a run stands: its outcome, why it failed, and which streams were read to their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ape_stream.errors import PipelineError, TruncatedError

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
