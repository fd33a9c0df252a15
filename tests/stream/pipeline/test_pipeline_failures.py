"""The first stage that fails is named, the rest ends, and the counters still balance."""

import threading
import time

import pytest

from ape_stream.errors import PipelineError, SinkError, SourceError
from ape_stream.pipeline import Pipeline
from ape_stream.testing import CollectSink, ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet

PROMPTS = PromptSet.of("red apple")


def source(*, finite, error=None, name="cam", live=False):
    given = list(frames(20, stream=name)) if finite else frames(10**9, stream=name)
    return ListSource(given, name=name, live=live, error=error)


class FailingPerceiver(OraclePerceiver):
    def perceive(self, frames):
        if len(self.batches) == 5:
            raise RuntimeError("CUDA error: out of memory\nsecond line")
        return super().perceive(frames)


class ForgetfulPerceiver(OraclePerceiver):
    def perceive(self, frames):
        return super().perceive(frames)[:-1]


class FailingTracker:
    def __init__(self):
        self.calls = 0

    def update(self, found, time_s):
        self.calls += 1
        if self.calls == 5:
            raise ValueError(f"lost at {time_s:.2f} s")
        return found


CASES = {
    "perceiver": (
        {"perceiver": FailingPerceiver()},
        r"perceiver, on cam #5, failed: RuntimeError: CUDA",
    ),
    "results": ({"perceiver": ForgetfulPerceiver()}, r"0 results for 1 frames"),
    "tracker": (
        {"tracker": FailingTracker},
        r"tracker, on cam #4, failed: ValueError: lost at 0\.13 s",
    ),
    "sink": (
        {"sinks": [CollectSink(error=SinkError("disk full"), error_at=5, name="out.mp4")]},
        r"sink out\.mp4, on cam #5, failed: disk full",
    ),
}


@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_a_failing_stage_is_named(case, finite):
    parts, says = CASES[case]
    parts = {**parts}
    if case == "perceiver":
        parts["perceiver"] = FailingPerceiver()
    if case == "sink":
        parts["sinks"] = [CollectSink(error=SinkError("disk full"), error_at=5, name="out.mp4")]
    before = set(threading.enumerate())
    other = CollectSink()
    parts["sinks"] = [other, *parts.get("sinks", [])]
    cam = source(finite=finite)
    run = Pipeline([cam], parts.pop("perceiver", OraclePerceiver()), PROMPTS, **parts)
    with pytest.raises(PipelineError, match=says) as caught:
        list(run)
    assert caught.value.__cause__ is not None
    assert "\n" not in str(caught.value)
    assert run.outcome == "failed"
    assert (cam.closed, other.closed) == (1, 1)
    assert isinstance(other.seen_error, PipelineError)
    stats = run.stats()
    assert stats.in_flight == 0
    assert stats.captured == cam.delivered == stats.published + stats.dropped
    assert stats.published == len(other.results) - (case == "sink")
    assert "failed" in stats.streams["cam"].dropped or finite
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("live", [True, False])
def test_a_source_that_breaks_is_named_and_ends_the_others(live):
    broken = source(finite=True, error=SourceError("cable pulled"), name="broken", live=live)
    other = source(finite=False, name="other")
    run = Pipeline([broken, other], OraclePerceiver(), PROMPTS)
    with pytest.raises(PipelineError, match="source broken failed: cable pulled") as caught:
        list(run)
    assert isinstance(caught.value.__cause__, SourceError)
    assert (broken.closed, other.closed) == (1, 1)
    assert run.stats().in_flight == 0


def test_what_was_written_before_a_failure_stays():
    sink = CollectSink()
    run = Pipeline([source(finite=False)], FailingPerceiver(), PROMPTS, sinks=[sink])
    with pytest.raises(PipelineError):
        list(run)
    indices = [r.frame.index for r in sink.results]
    assert indices == list(range(len(indices)))
    assert sink.closed == 1


class BadAtClosing(CollectSink):
    def __exit__(self, kind, error, trace):
        super().__exit__(kind, error, trace)
        raise SinkError("cannot finish out.mp4: no space left on device")


def test_a_sink_that_cannot_close_is_named_and_the_others_are_closed():
    good = CollectSink()
    sinks = [good, BadAtClosing(name="out.mp4")]
    run = Pipeline([source(finite=True)], OraclePerceiver(), PROMPTS, sinks=sinks)
    with pytest.raises(PipelineError, match=r"closing sink out\.mp4 failed: cannot finish"):
        list(run)
    assert good.closed == 1
    assert len(good.results) == 20


def test_a_second_trouble_at_closing_is_logged_not_raised(caplog):
    sinks = [CollectSink(error=SinkError("first")), BadAtClosing(name="late")]
    with pytest.raises(PipelineError, match="first"):
        list(Pipeline([source(finite=True)], OraclePerceiver(), PROMPTS, sinks=sinks))
    assert "closing sink late failed" in caplog.text


class Deaf(ListSource):
    """Hangs in a read that nothing ends."""

    def __init__(self, hang):
        super().__init__([], name="deaf", live=True)
        self._hang = hang

    def __iter__(self):
        yield from frames(1, stream="deaf")
        self._hang.wait(30)


def test_a_source_that_hangs_is_left_behind_and_named(caplog):
    hang = threading.Event()
    deaf = Deaf(hang)
    start = time.monotonic()
    with Pipeline([deaf], OraclePerceiver(), PROMPTS) as run:
        for _ in run:
            run.stop()
    assert time.monotonic() - start < 5
    assert deaf.closed == 1  # released once, not twice
    assert "source deaf did not end within" in caplog.text
    hang.set()
    for thread in threading.enumerate():
        if thread.name.startswith("ape_stream"):
            thread.join(5)


def test_what_fails_in_its_own_way_while_it_opens_is_named_and_the_others_are_closed():
    class Locked(CollectSink):
        def __enter__(self):
            raise KeyError("no key")

    feed, first = source(finite=True), CollectSink()
    sinks = [first, Locked(name="safe")]
    with pytest.raises(PipelineError, match="opening sink safe failed: KeyError: 'no key'"):
        list(Pipeline([feed], OraclePerceiver(), PROMPTS, sinks=sinks))
    assert (feed.closed, first.closed) == (1, 1)


def test_errors_of_the_caller_pass_through_and_reach_the_sinks():
    sink = CollectSink()
    run = Pipeline([source(finite=False)], OraclePerceiver(), PROMPTS, sinks=[sink])

    def work():
        with run:
            for _ in run:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert isinstance(sink.seen_error, ZeroDivisionError)
    assert run.outcome == "stopped"
