"""What sinks are given of the run before they are entered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ape_stream.protocols import ControlsRun, EndsRun, SeesFrames, WatchesRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_stream.pipeline.stream import SourceStream
    from ape_stream.protocols import RunControl, Sink

__all__ = ["attach"]


def attach(sinks: Sequence[Sink], run: RunControl, streams: Sequence[SourceStream]) -> None:
    """Give each sink what it asks for by having the method.

    Args:
        sinks: They are not entered yet.
        run: The run.
        streams: Its streams, which are not read yet.
    """
    for sink in sinks:
        if isinstance(sink, WatchesRun):
            sink.watch(run.stats)
        if isinstance(sink, EndsRun):
            sink.on_end(run.stop)
        if isinstance(sink, ControlsRun):
            sink.control(run)
        if isinstance(sink, SeesFrames):
            for stream in streams:
                stream.watchers.append(sink.see)
