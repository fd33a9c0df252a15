"""The last stage: results go through every sink, in the caller's thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ape_stream.errors import PipelineError
from ape_stream.pipeline.run_state import FAILED, STOPPED
from ape_stream.stats import StageMeter

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from ape_stream.channel import Channel
    from ape_stream.pipeline.stream import SourceStream
    from ape_stream.protocols import Sink
    from ape_stream.types import FrameResult

__all__ = ["Publisher", "sink_name"]


class Publisher:
    """Takes results from the model and writes them.

    Args:
        results: Where they come from.
        sinks: Each gets every result, in this order.
        guard: The lock of the whole pipeline.
    """

    def __init__(
        self,
        results: Channel[tuple[SourceStream, FrameResult]],
        sinks: Sequence[Sink],
        guard: threading.Condition,
    ) -> None:
        self.meter = StageMeter()
        self._results = results
        self._sinks = sinks
        self._guard = guard

    def publish_next(self) -> FrameResult:
        """Wait for a result, write it to every sink, and return it.

        Raises:
            Ended: there are no more results.
            Aborted: the run is over.
            PipelineError: a sink failed.
        """
        stream, result = self._take()
        start = time.monotonic()
        try:
            for sink in self._sinks:
                _write(sink, result)
        except BaseException as error:
            with self._guard:
                stream.counters.leave("publishing")
                # Anything but a failed sink is the end of the run (Ctrl-C inside a sink).
                stream.counters.drop(FAILED if isinstance(error, PipelineError) else STOPPED)
            raise
        with self._guard:
            stream.counters.leave("publishing")
            stream.counters.publish(result.frame.captured_ns)
            self.meter.work.add(time.monotonic() - start)
        return result

    def _take(self) -> tuple[SourceStream, FrameResult]:
        # Under one guard: no other thread may count the frame in neither stage.
        with self._guard:
            stream, result = self._results.get()
            stream.counters.leave("ready")
            stream.counters.enter("publishing")
            return stream, result


def _write(sink: Sink, result: FrameResult) -> None:
    try:
        sink.write(result)
    except Exception as error:
        where = f"sink {sink_name(sink)}, on {result.frame.stream} #{result.frame.index},"
        raise PipelineError.of(where, error) from error


def sink_name(sink: Sink) -> str:
    """The name of a sink in messages."""
    return str(getattr(sink, "name", None) or type(sink).__name__)
