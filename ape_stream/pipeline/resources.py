"""Sources and sinks, opened in order and closed all, whatever one of them does."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ape_stream.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from ape_stream.protocols import Sink, Source

__all__ = ["Resources"]

_log = logging.getLogger("ape_stream")


class Resources:
    """What is open now; the last one opened is closed first."""

    def __init__(self) -> None:
        self._open: list[tuple[str, Source | Sink]] = []

    def enter(self, kind: str, named: Iterable[tuple[str, Source | Sink]]) -> None:
        """Open these.

        Args:
            kind: `source` or `sink`, for messages.
            named: Each with its name.

        Raises:
            Exception: what the first that cannot be opened raised.
        """
        for name, resource in named:
            resource.__enter__()
            self._open.append((f"{kind} {name}", resource))

    def release(self, resources: Iterable[Source]) -> None:
        """Leave these now, from another thread than the one that reads them."""
        released = list(resources)
        for entry in [e for e in self._open if any(e[1] is source for source in released)]:
            self._open.remove(entry)
            if (problem := _close(entry, None, None, None)) is not None:
                _log.warning("%s", problem)

    def leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> list[PipelineError]:
        """Close all that is open.

        Args:
            kind: Type of the error underway, or None.
            error: The error underway, or None.
            trace: Its traceback, or None.

        Returns:
            What could not be closed well.
        """
        closed = [_close(entry, kind, error, trace) for entry in reversed(self._open)]
        self._open.clear()
        return [problem for problem in closed if problem is not None]


def _close(
    entry: tuple[str, Source | Sink],
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> PipelineError | None:
    what, resource = entry
    try:
        resource.__exit__(kind, error, trace)
    except Exception as problem:  # noqa: BLE001 (the others must be closed whatever this one does)
        return PipelineError.of(f"closing {what}", problem)
    return None
