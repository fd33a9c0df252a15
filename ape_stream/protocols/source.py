"""A source, and what it may also offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ape_stream.protocols.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from fractions import Fraction
    from pathlib import Path

    from ape_stream.types import Frame

__all__ = ["KnowsFrameCount", "KnowsRate", "ReadsFiles", "SkipsFrames", "Source"]


@runtime_checkable
class Source(Resource, Protocol):
    """Delivers the frames of one stream in order.

    A pipeline that is stopped while `__iter__` waits for a frame leaves the source
    (`__exit__`) from another thread: the iterator must then end within 1 s. So leaving only
    signals while an iteration runs, and the iteration itself releases the device.
    """

    name: str
    """The stream's name, written into every frame."""
    live: bool
    """True where time does not wait (camera, network): old frames may be dropped. Read by the
    pipeline once the source is entered."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame once; no wait inside lasts over 1 s without a way to stop.

        Raises:
            SourceError: the stream cannot be read on.
            TruncatedError: the stream broke off early; all that decodes was yielded before.
        """
        ...


@runtime_checkable
class KnowsFrameCount(Protocol):
    """A source that may know how many frames it will deliver."""

    @property
    def frame_count(self) -> int | None:
        """How many frames there will be, or None where this cannot be known."""
        ...


@runtime_checkable
class KnowsRate(Protocol):
    """A source that may know its frame rate."""

    @property
    def rate(self) -> Fraction | None:
        """Frames per second, as stated and not as measured; None where nothing is stated."""
        ...


@runtime_checkable
class SkipsFrames(Protocol):
    """A source that can leave frames out before it makes images of them, which takes time."""

    def keep(self, wanted: Callable[[int, float], bool]) -> None:
        """Take what says, for each frame in order, by index and time_s, whether it is yielded.

        Called once, before the source is iterated.
        """
        ...


@runtime_checkable
class ReadsFiles(Protocol):
    """A source that reads files: no output may replace one of them."""

    def files(self) -> Iterable[Path]:
        """The files it reads; called before it is entered."""
        ...
