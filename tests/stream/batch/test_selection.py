"""Which frames of a clip are taken."""

import math

import pytest

from ape_stream.batch.selection import Chooser, Selection, parse_time
from ape_stream.errors import UsageError


def taken(times, **choice):
    chooser = Chooser(Selection(**choice))
    return [k for k, time_s in enumerate(times) if chooser.take(time_s)]


RATE_30 = [1.4 + k / 30 for k in range(30)]  # as an mpegts file, which does not begin at 0


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, list(range(30))),
        ({"stride": 7}, [0, 7, 14, 21, 28]),
        ({"start_s": 0.5}, list(range(15, 30))),
        ({"start_s": 0.5, "stride": 7}, [15, 22, 29]),
        ({"end_s": 0.1}, [0, 1, 2]),
        ({"fps": 10}, list(range(0, 30, 3))),
        ({"fps": 10, "start_s": 1 / 30}, list(range(1, 30, 3))),
        ({"fps": 60}, list(range(30))),
        ({"fps": 0.5}, [0]),
        ({"max_frames": 2, "stride": 2}, [0, 2]),
        ({"start_s": 5}, []),
    ],
)
def test_frames_are_taken_by_time_and_count(choice, expected):
    assert taken(RATE_30, **choice) == expected


def test_a_rate_takes_the_first_frame_of_each_slot_where_frames_are_missing():
    assert taken([0, 0.01, 0.26, 0.9, 0.95, 1.0], fps=4) == [0, 2, 3, 5]


def test_nothing_is_read_once_no_frame_can_follow():
    chooser = Chooser(Selection(max_frames=1))
    chooser.take(0.0)
    assert chooser.over


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1:30", 90), ("1:01:30.5", 3690.5), (".5", 0.5)],
)
def test_times_are_seconds_or_clocks(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "1:2:3:4", "-3", "1h"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="is no time"):
        parse_time(text)


@pytest.mark.parametrize(
    "choice",
    [
        {"start_s": 2, "end_s": 1},
        {"start_s": 1, "end_s": 1},
        {"fps": math.inf},
        {"stride": 0},
        {"fps": 0},
        {"fps": 5, "stride": 2},
        {"max_frames": 0},
    ],
)
def test_what_selects_nothing_is_refused(choice):
    with pytest.raises(UsageError):
        Selection(**choice)


def test_the_estimate_is_what_is_taken():
    for choice in (
        {},
        {"stride": 7},
        {"start_s": 0.5},
        {"start_s": 5},  # after its end
        {"end_s": 0.1},
        {"start_s": 0.5, "end_s": 0.7},
        {"end_s": 9},
        {"fps": 10},
        {"fps": 60},
        {"max_frames": 4},
    ):
        selection = Selection(**choice)
        assert selection.estimate(30, 30.0) == len(taken(RATE_30, **choice)), choice
    assert Selection().estimate(None, 30.0) is None
