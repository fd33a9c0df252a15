"""A sink that gets the results of one stream, with all that it may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from ape_stream.closing import Closing
from ape_stream.protocols import (
    ChecksItself,
    ControlsRun,
    EndsRun,
    NeedsMaps,
    SeesFrames,
    WatchesRun,
    WritesFiles,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ape_stream.protocols import RunControl, Sink
    from ape_stream.stats import RunStats
    from ape_stream.types import Frame, FrameResult, MapKind

__all__ = ["OneStream"]


class OneStream(Closing):
    """Passes the results of one stream to a sink.

    Args:
        sink: Where they go.
        stream: The stream's name.
    """

    def __init__(self, sink: Sink, stream: str) -> None:
        self.name = f"{getattr(sink, 'name', type(sink).__name__)} of {stream}"
        self._sink = sink
        self._stream = stream

    def write(self, result: FrameResult) -> None:
        """Pass the result on if it is the stream's."""
        if result.frame.stream == self._stream:
            self._sink.write(result)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the sink; see `WritesFiles`."""
        return self._sink.files if isinstance(self._sink, WritesFiles) else ()

    def claim(self, streams: Sequence[str]) -> None:
        """Have the sink check its files, for this stream alone; see `WritesFiles`."""
        if isinstance(self._sink, WritesFiles):
            self._sink.claim([stream for stream in streams if stream == self._stream])

    def check(self) -> None:
        """Pass this on; see `ChecksItself`."""
        if isinstance(self._sink, ChecksItself):
            self._sink.check()

    def watch(self, stats: Callable[[], RunStats]) -> None:
        """Pass this on; see `WatchesRun`."""
        if isinstance(self._sink, WatchesRun):
            self._sink.watch(stats)

    @property
    def maps(self) -> frozenset[MapKind]:
        """What the sink needs; see `NeedsMaps`."""
        return self._sink.maps if isinstance(self._sink, NeedsMaps) else frozenset()

    def on_end(self, stop: Callable[[], None]) -> None:
        """Pass this on; see `EndsRun`."""
        if isinstance(self._sink, EndsRun):
            self._sink.on_end(stop)

    def control(self, run: RunControl) -> None:
        """Pass this on; see `ControlsRun`."""
        if isinstance(self._sink, ControlsRun):
            self._sink.control(run)

    def see(self, frame: Frame) -> None:
        """Pass the frame on if it is the stream's; see `SeesFrames`."""
        if isinstance(self._sink, SeesFrames) and frame.stream == self._stream:
            self._sink.see(frame)

    def __enter__(self) -> Self:
        self._sink.__enter__()
        return self

    def close(self, error: BaseException | None = None) -> None:
        """Close the sink."""
        trace = None if error is None else error.__traceback__
        self._sink.__exit__(None if error is None else type(error), error, trace)
