"""What sources and sinks have in common: they are context managers that may check themselves.

Entering opens the device or file, so what cannot work fails before any thread starts; leaving
closes it, on success and on failure alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ChecksItself", "Resource"]


class Resource(Protocol):
    """What is opened on entering and closed on leaving."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


@runtime_checkable
class ChecksItself(Protocol):
    """A source or sink that reports before a model loads that it could not be used."""

    def check(self) -> None:
        """Find out what needs nothing to be kept open; called before it is entered.

        Raises:
            SourceError: the source could not be opened.
            SinkError: the output could not be written.
        """
        ...
