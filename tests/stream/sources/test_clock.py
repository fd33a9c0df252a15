"""One clock for every source: times rise, restarts and outages count once."""

import math

import numpy as np
import pytest

from ape_stream.sources.clock import LONGEST_S, StreamClock


def run(clock, given, arrived=None):
    arrived = [None] * len(given) if arrived is None else arrived
    return [clock.time_s(*pair) for pair in zip(given, arrived, strict=True)]


def test_good_times_pass_unchanged():
    clock = StreamClock()
    times = [3.0, 3.1, 3.1, 70.5]
    assert run(clock, times) == times
    assert clock.restarts == 0


@pytest.mark.parametrize("time_s", [-0.001, math.nan, math.inf, -math.inf, LONGEST_S, 1e300])
def test_a_time_out_of_range_is_refused_and_does_not_count(time_s):
    clock = StreamClock()
    clock.time_s(1.0)
    with pytest.raises(ValueError, match="a frame's time is 0 to 1e"):
        clock.time_s(time_s)
    assert clock.time_s(1.5) == 1.5
    assert clock.restarts == 0


def test_a_restart_goes_on_by_the_last_step():
    clock = StreamClock()
    assert run(clock, [0, 0.5, 1.0, 0, 0.5]) == [0, 0.5, 1.0, 1.5, 2.0]
    assert clock.restarts == 1


def test_a_restart_goes_on_by_as_long_as_nothing_arrived():
    clock = StreamClock()
    assert run(clock, [0, 0.5, 0, 0.5], [7.0, 7.5, 10.5, 11.0]) == [0, 0.5, 3.5, 4.0]


def test_frames_without_a_time_come_one_step_apart():
    clock = StreamClock(step_s=0.04)
    np.testing.assert_allclose(run(clock, [None] * 3), [0, 0.04, 0.08])


def test_disorder_is_no_restart_and_still_rises():
    clock = StreamClock(step_s=0.04, jitter_s=0.1)
    times = run(clock, [0, 0.04, 0.04, 0.01, 0.12])
    np.testing.assert_allclose(times, [0, 0.04, 0.044, 0.048, 0.12])
    assert clock.restarts == 0


def test_a_leap_is_a_restart_where_the_format_has_them():
    assert run(StreamClock(step_s=0.04), [0, 5000])[1] == 5000
    assert run(StreamClock(step_s=0.04, leap_s=10), [0, 5000])[1] == 0.04
    assert run(StreamClock(step_s=60, leap_s=10), [0, 60, 120])[2] == 120  # a slow stream


def live():
    """A live clock that has seen ten frames, each 0.2 s on its way."""
    clock = StreamClock(step_s=0.1, live=True, jitter_s=0.1)
    run(clock, [k / 10 for k in range(10)], [100.2 + k / 10 for k in range(10)])
    return clock


@pytest.mark.parametrize("given_s", [0.0, 0.95, 77.0, None])
def test_an_outage_counts_in_full_for_any_time_of_the_sender(given_s):
    clock = live()
    clock.interrupt()
    assert clock.time_s(given_s, 105.2) == pytest.approx(5.0)
    if given_s is not None:
        assert clock.time_s(given_s + 0.1, 105.3) == pytest.approx(5.1)


def test_a_sender_that_kept_its_time_over_an_outage_is_believed():
    clock = live()
    clock.interrupt()
    assert clock.time_s(5.0, 105.25) == 5.0
    assert clock.restarts == 0


def test_many_outages_add_no_error():
    """Each first frame is 50 ms late; the next outage begins from the true line again."""
    clock = live()
    for k in range(1, 30):
        at_s = 100.2 + 5 * k
        clock.interrupt()
        assert clock.time_s(0.0, at_s + 0.05) == pytest.approx(5 * k, abs=0.06)
        clock.time_s(0.1, at_s + 0.1)


def test_a_leap_ahead_of_the_arrivals_is_a_new_time_line():
    clock = live()
    assert clock.time_s(50.0, 101.2) == pytest.approx(1.0)
    assert clock.restarts == 1


def test_a_backlog_keeps_the_times_of_the_sender():
    clock = live()
    for k in range(10, 40):  # delivered within 30 ms, after 3 s
        assert clock.time_s(k / 10, 103.2 + k / 1000, awaited=False) == pytest.approx(k / 10)
    assert clock.restarts == 0


def test_two_clocks_that_drift_apart_stay_together():
    """A camera whose clock is 0.1 % fast: its own times count, within one connection."""
    clock = StreamClock(step_s=0.04, live=True)
    for k in range(5000):
        time_s = clock.time_s(0.04004 * k, 0.04 * k)
    assert time_s == pytest.approx(0.04004 * 4999)
    clock.interrupt()
    assert clock.time_s(0.0, 0.04 * 5000 + 3) == pytest.approx(0.04004 * 5000 + 3, abs=0.1)
