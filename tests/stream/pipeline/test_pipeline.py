"""Every frame in order, every drop counted, on every way that a run can go."""

import itertools
import threading
import time

import pytest

from ape_stream.errors import ConfigError, PromptError, SourceError, TruncatedError, UsageError
from ape_stream.pipeline import Pipeline
from ape_stream.sources.push import PushSource
from ape_stream.testing import CollectSink, ListSource, OraclePerceiver, frames
from ape_stream.types import PromptSet

PROMPTS = PromptSet.of("red apple, dog face")


def endless(name="0", *, live=True, period_s=0.001):
    return ListSource(frames(10**9, stream=name), name=name, live=live, period_s=period_s)


def balance(stats):
    """captured - published - dropped - in flight, by stream: all zeros."""
    return {
        name: s.captured - s.published - sum(s.dropped.values()) - sum(s.in_flight.values())
        for name, s in stats.streams.items()
    }


@pytest.fixture(autouse=True)
def no_thread_left():
    before = set(threading.enumerate())  # a video that an earlier test left may still read
    yield
    left = set(threading.enumerate()) - before
    assert not [thread.name for thread in left if thread.name.startswith("ape_stream")]


# -- every frame -------------------------------------------------------------------------


def test_every_frame_of_a_file_comes_out_once_and_in_order():
    source, sink = ListSource(list(frames(50))), CollectSink()
    with Pipeline([source], OraclePerceiver(), PROMPTS, sinks=[sink]) as run:
        results = list(run)
    assert [r.frame.index for r in results] == list(range(50))
    assert [r.frame.index for r in sink.results] == list(range(50))
    assert run.outcome == "finished"
    stats = run.stats()
    assert (stats.captured, stats.published, stats.dropped, stats.in_flight) == (50, 50, 0, 0)


def test_a_plain_loop_opens_and_closes_everything():
    source, sink = ListSource(list(frames(3))), CollectSink()
    assert len(list(Pipeline([source], OraclePerceiver(), PROMPTS, sinks=[sink]))) == 3
    assert (source.opened, source.closed, sink.opened, sink.closed) == (1, 1, 1, 1)


def test_an_empty_source_is_a_finished_run():
    run = Pipeline([ListSource([])], OraclePerceiver(), PROMPTS)
    assert list(run) == []
    assert run.outcome == "finished"


def test_several_files_share_calls_and_each_keeps_its_order():
    names = ["a", "b", "c"]
    sources = [ListSource(list(frames(20, stream=n)), name=n) for n in names]
    perceiver = OraclePerceiver(delay_s=0.005)
    results = list(Pipeline(sources, perceiver, PROMPTS))
    for name in names:
        assert [r.frame.index for r in results if r.frame.stream == name] == list(range(20))
    assert max(len(batch) for batch in perceiver.batches) == 3
    assert all(len({f.stream for f in batch}) == len(batch) for batch in perceiver.batches)


def test_a_slow_sink_holds_a_file_back_instead_of_losing_frames():
    source = ListSource(list(frames(30)))
    run = Pipeline([source], OraclePerceiver(), PROMPTS, sinks=[CollectSink(delay_s=0.005)])
    for taken, _ in enumerate(run, start=1):
        assert source.delivered <= taken + 9  # buffer, model, channel and the one on its way
    assert run.stats().dropped == 0


def test_timings_are_milliseconds_by_stage():
    perceiver = OraclePerceiver(delay_s=0.02)
    result = next(iter(Pipeline([ListSource(list(frames(1)))], perceiver, PROMPTS)))
    assert set(result.timings) == {"wait", "perceive", "track"}
    assert 20 <= result.timings["perceive"] < 2000


# -- live: the newest frame, exact counters -------------------------------------------------


def test_a_slow_model_on_a_live_source_drops_old_frames_and_counts_them():
    source, perceiver = endless(), OraclePerceiver(delay_s=0.02)
    with Pipeline([source], perceiver, PROMPTS) as run:
        indices = [result.frame.index for result in itertools.islice(run, 20)]
    assert indices == sorted(set(indices))
    stats = run.stats()
    assert stats.streams["0"].dropped["overtaken"] > 20
    assert stats.captured == source.delivered
    assert balance(stats) == {"0": 0}
    assert stats.in_flight == 0


def test_ages_stay_flat_under_overload():
    with Pipeline([endless()], OraclePerceiver(delay_s=0.02), PROMPTS) as run:
        ages = [
            time.monotonic_ns() - result.frame.captured_ns for result in itertools.islice(run, 30)
        ]
    early, late = sorted(ages[5:15])[5], sorted(ages[20:])[5]
    assert late < early + 100e6  # nanoseconds; a queue would have added 25 x 20 ms


def test_a_slow_sink_drops_before_the_model():
    perceiver, sink = OraclePerceiver(), CollectSink(delay_s=0.02)
    with Pipeline([endless()], perceiver, PROMPTS, sinks=[sink]) as run:
        for _ in itertools.islice(run, 20):
            pass
    assert len(perceiver.batches) <= 20 + 3
    assert run.stats().streams["0"].dropped["overtaken"] > 20


def test_the_counters_balance_at_any_moment():
    sources = [endless("live"), ListSource(frames(10**9, stream="file"), name="file")]
    with Pipeline(sources, OraclePerceiver(delay_s=0.002), PROMPTS) as run:
        seen, done = [], threading.Event()

        def audit():
            while not done.is_set():
                seen.append(run.stats())

        auditor = threading.Thread(target=audit)
        auditor.start()
        for count, _ in enumerate(run, start=1):
            inside = run.stats()
            assert inside.published == count
            if count == 100:
                break
        done.set()
        auditor.join()
    assert len(seen) > 50
    assert all(balance(stats) == {"live": 0, "file": 0} for stats in seen)
    assert any(stats.in_flight > 1 for stats in seen)
    final = run.stats()
    assert balance(final) == {"live": 0, "file": 0}
    assert final.in_flight == 0
    assert final.captured == sum(source.delivered for source in sources)
    assert final.streams["file"].dropped.keys() <= {"stopped"}


def test_policy_overrides_what_the_source_is():
    live = ListSource(list(frames(40)), live=True)
    every = Pipeline([live], OraclePerceiver(delay_s=0.001), PROMPTS, policy="every")
    assert len(list(every)) == 40
    newest = Pipeline(
        [ListSource(list(frames(40)), period_s=0.001)],
        OraclePerceiver(delay_s=0.02),
        PROMPTS,
        policy="newest",
    )
    assert 1 <= len(list(newest)) < 40
    assert balance(newest.stats()) == {"0": 0}


# -- prompts while it runs ---------------------------------------------------------------


def test_new_prompts_take_over_between_frames_and_no_frame_is_lost():
    perceiver = OraclePerceiver(delay_s=0.002)
    with Pipeline([ListSource(list(frames(60)))], perceiver, PROMPTS) as run:
        results = []
        for result in run:
            results.append(result)
            if result.frame.index == 20:
                active = run.set_prompts("dog face, blue car")  # from the consumer's own thread
                assert active.texts == ("dog face", "blue car")
    assert [r.frame.index for r in results] == list(range(60))
    assert results[0].prompts.texts == ("red apple", "dog face")
    assert results[-1].prompts.texts == ("dog face", "blue car")
    swaps = sum(a.prompts != b.prompts for a, b in itertools.pairwise(results))
    assert swaps == 1
    assert perceiver.encoded == ["red apple", "dog face", "blue car"]


def test_prompts_change_while_the_model_waits_for_the_sinks():
    with Pipeline([endless()], OraclePerceiver(), PROMPTS) as run:
        next(iter(run))
        time.sleep(0.05)  # the channel of results is full now: nobody takes any
        assert run.set_prompts(["wet dog"], timeout_s=5).texts == ("wet dog",)


def test_a_threshold_fills_in_where_a_prompt_has_none():
    prompts = PromptSet.of("red apple, dog face")
    perceiver = OraclePerceiver(delay_s=0.002)
    with Pipeline([endless()], perceiver, prompts, threshold=0.3) as run:
        assert [p.threshold for p in run.prompts] == [0.3, 0.3]
        stream = iter(run)
        next(stream)
        assert [p.threshold for p in run.set_threshold(0.7)] == [0.7, 0.7]
        for result in itertools.islice(stream, 10):
            last = result
    assert [p.threshold for p in last.prompts] == [0.7, 0.7]
    assert perceiver.encoded == ["red apple", "dog face"]


class Picky(OraclePerceiver):
    """Takes prompts even when it then refuses them, as a careless model may."""

    def prepare(self, prompts):
        super().prepare(prompts)
        if "bad" in prompts.texts:
            raise ValueError("cannot read 'bad'")


def test_a_refusal_leaves_the_old_prompts_active():
    with Pipeline([ListSource(list(frames(30)))], Picky(delay_s=0.002), PROMPTS) as run:
        results = []
        for result in run:
            results.append(result)
            if result.frame.index == 5:
                with pytest.raises(UsageError, match="cannot read 'bad'"):
                    run.set_prompts("bad, dog face")
        assert run.prompts == PROMPTS
    assert len(results) == 30
    assert all(r.prompts == PROMPTS for r in results)
    assert all(len(r.instances) == 2 for r in results)


def test_bad_prompts_are_refused_before_anything_opens():
    source = ListSource(list(frames(3)))
    with pytest.raises(UsageError, match="cannot read 'bad'"):
        list(Pipeline([source], Picky(), PromptSet.of("bad")))
    assert source.opened == 0


def test_ten_thousand_prompts_pass():
    prompts = PromptSet.of([f"thing {k}" for k in range(10_000)])
    result = next(iter(Pipeline([ListSource(list(frames(1)))], OraclePerceiver(), prompts)))
    assert len(result.prompts) == 10_000


def test_prompts_after_the_end_are_refused():
    with Pipeline([ListSource(list(frames(2)))], OraclePerceiver(), PROMPTS) as run:
        list(run)
    with pytest.raises(Exception, match="the run is over"):
        run.set_prompts("dog", timeout_s=5)


def test_prompts_before_the_start_take_the_place_of_the_first_ones():
    run = Pipeline([ListSource(list(frames(2)))], OraclePerceiver(), PROMPTS)
    assert run.set_prompts("dog", timeout_s=5) == run.prompts
    assert run.set_threshold(0.7, timeout_s=5) == PromptSet.of("dog").with_threshold(0.7)
    assert [result.prompts for result in run] == 2 * [PromptSet.of("dog").with_threshold(0.7)]


def test_bad_prompts_before_the_start_are_refused_at_it():
    run = Pipeline([ListSource(list(frames(2)))], Picky(), PROMPTS)
    run.set_prompts("bad", timeout_s=5)
    with pytest.raises(UsageError, match="cannot read 'bad'"):
        list(run)


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_a_threshold_has_a_range(threshold):
    run = Pipeline([ListSource([])], OraclePerceiver(), PROMPTS)
    with pytest.raises(PromptError, match="not within"):
        run.set_threshold(threshold)


# -- the ends ----------------------------------------------------------------------------


def test_stop_from_another_thread_ends_the_loop_within_a_second():
    run = Pipeline([endless()], OraclePerceiver(delay_s=0.01), PROMPTS)
    timer = threading.Timer(0.1, run.stop)
    timer.start()
    for _ in run:
        pass
    timer.join()
    assert run.outcome == "stopped"
    assert run.stats().elapsed_s < 1.5
    assert run.stats().in_flight == 0


@pytest.mark.parametrize("while_preparing", [False, True])
def test_a_run_that_is_stopped_before_it_begins_has_no_results(while_preparing):
    class StopsInPrepare(OraclePerceiver):
        def prepare(self, prompts):
            run.stop()
            super().prepare(prompts)

    source, sink = endless(), CollectSink()
    perceiver = StopsInPrepare() if while_preparing else OraclePerceiver()
    run = Pipeline([source], perceiver, PROMPTS, sinks=[sink])
    if not while_preparing:
        run.stop()
    assert list(run) == []
    assert run.outcome == "stopped"
    assert (source.opened, sink.opened) == (0, 0)


def test_stop_ends_a_source_that_waits_for_ever():
    source = PushSource("robot")
    with Pipeline([source], OraclePerceiver(), PROMPTS) as run:
        timer = threading.Timer(0.05, run.stop)
        timer.start()
        assert list(run) == []
        timer.join()
    assert run.outcome == "stopped"


def test_leaving_the_loop_early_closes_everything_without_an_error():
    source, sink = endless(), CollectSink()
    with Pipeline([source], OraclePerceiver(), PROMPTS, sinks=[sink]) as run:
        for _ in run:
            break
    assert (source.closed, sink.closed, sink.seen_error) == (1, 1, None)
    assert run.outcome == "stopped"


def test_leaving_a_plain_loop_early_closes_everything():
    source, sink = endless(), CollectSink()
    stream = iter(Pipeline([source], OraclePerceiver(), PROMPTS, sinks=[sink]))
    next(stream)
    stream.close()
    assert (source.closed, sink.closed, sink.seen_error) == (1, 1, None)


def test_an_interrupt_in_a_sink_closes_everything():
    sink = CollectSink(error=KeyboardInterrupt(), error_at=3)
    other = CollectSink()
    source = endless()
    run = Pipeline([source], OraclePerceiver(), PROMPTS, sinks=[other, sink])
    with pytest.raises(KeyboardInterrupt):
        list(run)
    assert (source.closed, sink.closed, other.closed) == (1, 1, 1)
    assert run.stats().in_flight == 0


def test_a_truncated_source_gives_all_it_has_and_says_so(caplog):
    error = TruncatedError("cut.mp4 ends early: 12 of 30 frames were read")
    sources = [
        ListSource(list(frames(12, stream="cut")), name="cut", error=error),
        ListSource(list(frames(30, stream="whole")), name="whole"),
    ]
    run = Pipeline(sources, OraclePerceiver(), PROMPTS)
    streams = [r.frame.stream for r in run]
    assert (streams.count("cut"), streams.count("whole")) == (12, 30)
    assert run.outcome == "truncated"
    assert run.truncated == (error,)
    assert "12 of 30 frames" in caplog.text


def test_a_pipeline_runs_once():
    run = Pipeline([ListSource(list(frames(2)))], OraclePerceiver(), PROMPTS)
    list(run)
    with pytest.raises(UsageError, match="runs once"):
        list(run)
    with pytest.raises(UsageError, match="runs once"):
        run.__enter__()


@pytest.mark.parametrize(
    ("sources", "policy", "says"),
    [
        ([], "auto", "no source given"),
        ([ListSource([]), ListSource([])], "auto", "two sources are called '0'"),
        ([ListSource([])], "some", "policy 'some' is none of auto, every, newest"),
    ],
)
def test_what_cannot_run_is_refused_at_once(sources, policy, says):
    with pytest.raises(ConfigError, match=says):
        Pipeline(sources, OraclePerceiver(), PROMPTS, policy=policy)


def test_a_hundred_runs_leave_no_thread():
    before = set(threading.enumerate())
    for _ in range(100):
        assert len(list(Pipeline([ListSource(list(frames(2)))], OraclePerceiver(), PROMPTS))) == 2
    assert set(threading.enumerate()) <= before


def test_a_dead_source_fails_before_any_sink_opens():
    class Dead(ListSource):
        def __enter__(self):
            raise SourceError("camera 7 does not answer: is it plugged in?")

    first, sink = ListSource([], name="first"), CollectSink()
    run = Pipeline([first, Dead([], name="dead")], OraclePerceiver(), PROMPTS, sinks=[sink])
    with pytest.raises(SourceError, match="camera 7"):
        list(run)
    assert (first.closed, sink.opened) == (1, 0)
