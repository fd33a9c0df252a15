"""A base class for what is used in a `with` statement and closed at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Closing"]


class Closing:
    """A context manager that only has to say how it closes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self.close(error)

    def close(self, error: BaseException | None = None, /) -> None:
        """Release everything; `error` is what ended the `with` statement, if anything did."""
        raise NotImplementedError
