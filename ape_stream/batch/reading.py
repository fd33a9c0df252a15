"""The frames of a clip that are asked for, read ahead by a thread."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ape_stream.batch.selection import Chooser
from ape_stream.channel import Aborted, Channel, Ended
from ape_stream.errors import SourceError, TruncatedError
from ape_stream.plugins import make
from ape_stream.protocols import KnowsFrameCount, KnowsRate, SkipsFrames
from ape_stream.specs import source_plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from fractions import Fraction
    from pathlib import Path

    from ape_stream.batch.selection import Selection
    from ape_stream.protocols import Source
    from ape_stream.types import Frame

__all__ = ["Reading"]


class Reading:
    """One pass over a clip.

    Args:
        spec: What opens it.
        name: Of its stream.
        selection: Which frames are taken.
        options: Of the source.
        folder: What the names of image files count from.
    """

    def __init__(
        self,
        spec: str,
        name: str,
        selection: Selection,
        options: Mapping[str, Any],
        folder: Path | None = None,
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._options = {**options, "name": name}
        self._selection = selection
        self.problem: str | None = None
        """Why the clip broke off, once all frames were read."""
        self.rate: tuple[int, int] | None = None
        """Frames per second that the container states, once a frame was read."""
        self.taken = 0
        """Frames that the selection took so far."""

    def _source(self) -> Source:
        source: Source = make(
            "sources", source_plugin(self._spec), self._spec, options=self._options
        )
        return source

    def estimate(self) -> int | None:
        """About how many frames will be taken, from the head of the clip; None if unknown."""
        with self._source() as source:
            count = source.frame_count if isinstance(source, KnowsFrameCount) else None
            rate = source.rate if isinstance(source, KnowsRate) else None
        return self._selection.estimate(count, None if rate is None else float(rate))

    def frames(
        self, wanted: Callable[[int], bool], *, stop: int | None = None, ahead: int = 1
    ) -> Iterator[tuple[int, Frame]]:
        """Frames that are taken, each with its position among those that are.

        Args:
            wanted: Says of a position whether the frame is needed; others cost no more than their
                decoding.
            stop: The first position that is not needed; None reads to the end.
            ahead: Frames that may wait to be taken. One more is held by the thread that reads.

        Yields:
            Position and frame, in order.

        Raises:
            SourceError: the clip cannot be read, or is live.
        """
        chooser = Chooser(self._selection)
        with self._source() as source:
            if source.live:
                raise SourceError(f"{self._spec} is live: it has no end")
            self.rate = _fraction(source.rate if isinstance(source, KnowsRate) else None)

            def keep(_index: int, time_s: float) -> bool:
                if chooser.over or (stop is not None and chooser.taken >= stop):
                    raise _Enough
                taken = chooser.take(time_s)
                self.taken = chooser.taken
                return taken and wanted(chooser.taken - 1)

            with _read_ahead(self._kept(source, keep), ahead) as frames:
                yield from frames

    def _kept(
        self, source: Source, keep: Callable[[int, float], bool]
    ) -> Generator[tuple[int, Frame]]:
        skips = isinstance(source, SkipsFrames)
        if isinstance(source, SkipsFrames):
            source.keep(keep)
        try:
            for frame in source:
                if skips or keep(frame.index, frame.time_s):
                    yield self.taken - 1, self._relative(frame)
        except _Enough:
            pass
        except TruncatedError as error:
            self.problem = " ".join(str(error).split())

    def _relative(self, frame: Frame) -> Frame:
        """A frame whose image file is named as on every machine."""
        if frame.origin is None or self._folder is None:
            return frame
        path = os.path.relpath(frame.origin, self._folder)
        return replace(frame, origin=path.replace(os.sep, "/"))


class _Enough(Exception):  # noqa: N818 (a signal, not an error)
    """No further frame is needed."""


def _fraction(rate: Fraction | None) -> tuple[int, int] | None:
    return None if not rate else (rate.numerator, rate.denominator)


@contextmanager
def _read_ahead(
    items: Generator[tuple[int, Frame]], ahead: int
) -> Iterator[Iterator[tuple[int, Frame]]]:
    """Iterate in a thread that is a few items ahead; leaving ends it."""
    channel: Channel[tuple[int, Frame]] = Channel(ahead)
    failure: list[BaseException] = []

    def read() -> None:
        try:
            for item in items:
                channel.put(item)
        except Aborted:
            pass
        except BaseException as error:  # noqa: BLE001 (raised again where the items are taken)
            failure.append(error)
        finally:
            items.close()
            channel.end()

    def taken() -> Iterator[tuple[int, Frame]]:
        try:
            while True:
                yield channel.get()
        except Ended:
            if failure:
                raise failure[0] from None

    thread = threading.Thread(target=read, name="reading", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        channel.abort("left")
        thread.join()
