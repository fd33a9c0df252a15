"""Sources and sinks: opened in order, and every one closed even if another cannot be."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ape_stream.errors import ApeStreamError, PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterable

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
            ApeStreamError: what the first that cannot be opened raised.
            PipelineError: it raised something else, which is the cause of this one.
        """
        for name, resource in named:
            # Listed only once it is open: what could not be opened must not be closed.
            try:
                resource.__enter__()
            except ApeStreamError:
                raise
            except Exception as error:
                raise PipelineError.of(f"opening {kind} {name}", error) from error
            self._open.append((f"{kind} {name}", resource))

    def release(self, resources: Iterable[Source]) -> None:
        """Close these now, from another thread than the one that reads them."""
        released = list(resources)
        # By identity: a source may define `==` on its own.
        for entry in [e for e in self._open if any(e[1] is source for source in released)]:
            self._open.remove(entry)
            if (problem := _close(entry, None)) is not None:
                _log.warning("%s", problem)

    def leave(self, error: BaseException | None) -> list[PipelineError]:
        """Close all that is open.

        Args:
            error: Why results are missing, or None where all is well.

        Returns:
            What could not be closed well.
        """
        closed = [_close(entry, error) for entry in reversed(self._open)]
        self._open.clear()
        return [problem for problem in closed if problem is not None]


def _close(entry: tuple[str, Source | Sink], error: BaseException | None) -> PipelineError | None:
    what, resource = entry
    try:
        if error is None:
            resource.__exit__(None, None, None)
        else:
            resource.__exit__(type(error), error, error.__traceback__)
    except Exception as problem:  # noqa: BLE001 (any error: the others must still be closed)
        return PipelineError.of(f"closing {what}", problem)
    return None
