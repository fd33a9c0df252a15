"""The reason that sinks are closed with: whether results are missing, and why."""

from __future__ import annotations

import signal

import pytest

from ape_stream.errors import PipelineError, SourceError, StoppedError, TruncatedError
from ape_stream.pipeline import Pipeline
from ape_stream.testing import CollectSink, ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet

PROMPTS = PromptSet.of("red apple")


class Endless(ListSource):
    """A stream that goes on: a file where `live` is false."""

    def __init__(self, *, live, name="0"):
        super().__init__(frames(10**9, stream=name), name=name, live=live, period_s=0.001)


def reason(sources, end, sink=None):
    """The error that a sink sees when the run is ended from frame 3 on by `end(run)`."""
    sink = CollectSink() if sink is None else sink
    with Pipeline(sources, OraclePerceiver(), PROMPTS, sinks=[sink]) as run:
        for result in run:
            if result.frame.index >= 3 and end(run):  # of a live stream, 3 may be left out
                break
    return sink.seen_error


def test_a_whole_run_is_no_error():
    assert reason([ListSource(list(frames(9)))], lambda _run: False) is None


def test_a_file_that_is_stopped_is_an_error():
    assert isinstance(reason([Endless(live=False)], lambda run: run.stop()), StoppedError)


def test_a_live_stream_that_is_stopped_is_whole():
    whole = ListSource(list(frames(2, stream="a")), name="a")
    assert reason([whole, Endless(live=True)], lambda run: run.stop()) is None


def test_leaving_the_loop_is_the_callers_own_choice():
    assert reason([Endless(live=False)], lambda _run: True) is None


def test_a_source_that_breaks_off_is_the_reason():
    source = ListSource(list(frames(9)), error=TruncatedError("5 of 9 frames"))
    assert isinstance(reason([source], lambda _run: False), TruncatedError)


def test_a_source_that_fails_is_the_reason():
    sink = CollectSink()
    source = ListSource(list(frames(9)), error=SourceError("cable pulled"))
    with pytest.raises(PipelineError):
        reason([source], lambda _run: False, sink)
    assert isinstance(sink.seen_error, PipelineError)


@pytest.mark.parametrize(("live", "kind"), [(False, KeyboardInterrupt), (True, type(None))])
def test_an_interrupt_cuts_a_file_short_and_ends_a_live_stream(live, kind):
    sink = CollectSink()

    def interrupt(_run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reason([Endless(live=live)], interrupt, sink)
    assert isinstance(sink.seen_error, kind)


def test_signals_wait_until_all_sinks_are_closed():
    class Slow(CollectSink):
        def __exit__(self, *how):
            signal.raise_signal(signal.SIGINT)
            super().__exit__(*how)

    first, second = Slow(), Slow()
    with (
        pytest.raises(KeyboardInterrupt),
        Pipeline([ListSource([])], OraclePerceiver(), PROMPTS, sinks=[first, second]) as run,
    ):
        list(run)
    assert (first.closed, second.closed) == (1, 1)
