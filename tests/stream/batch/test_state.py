"""How a job stands: the time that is left, and which clips are given up."""

import pytest

from ape_stream.batch.clips import Clip
from ape_stream.batch.state import ClipState, Rate, left_s, time_left


@pytest.mark.parametrize(
    ("finding", "writing", "left"),
    [
        (8.0, 3.0, 8.0),
        (3.0, 8.0, 8.0),
        (0.0, 8.0, 8.0),
        (0.0, 0.0, 0.0),
        (8.0, None, 8.0),
        (0.0, None, None),  # all is found, and how long writing takes is not known: not 0
        (None, 3.0, None),
        (None, None, None),
    ],
)
def test_finding_and_writing_go_on_at_once(finding, writing, left):
    assert time_left(finding, writing) == left


def test_a_rate_needs_a_frame(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    rate = Rate()
    assert rate.time_for(0) == 0.0
    assert rate.time_for(5) is None
    rate.start()
    now[0] += 2.0
    rate.add(10)
    assert rate.time_for(20) == pytest.approx(4.0)


def test_time_left_counts_clips_of_unknown_length_like_the_others(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    states = [ClipState(Clip(str(k), f"{k}.mp4", 1, "digest")) for k in range(4)]
    finding, writing = Rate(), Rate()
    assert left_s(states, finding, writing) is None  # nothing is known
    states[0].expected, states[1].expected = 300, 100
    finding.start()
    now[0] += 2.0
    finding.add(100)  # 50 frames/s
    states[0].frames = 100
    assert left_s(states, finding, writing) == pytest.approx((200 + 100 + 2 * 200) / 50)
    writing.start()
    now[0] += 10.0
    writing.add(50)  # 5 frames/s, by now less than are found
    states[0].written = 100
    assert left_s(states, finding, writing) == pytest.approx((200 + 100 + 2 * 200) / 5)


def test_a_clip_is_found_once_its_end_is_known():
    state = ClipState(Clip("a", "a.mp4", 1, "digest"), expected=300)
    assert not state.take_end(None)
    assert (state.status, state.expected) == ("waiting", 300)
    assert state.take_end({"frames": 280, "problem": None})
    assert (state.status, state.expected, state.frames) == ("found", 280, 280)


def attempts(*at, during="find"):
    return [{"during": during, "reason": "killed", "at": one} for one in at]


@pytest.mark.parametrize(
    ("failed", "alike", "given_up"),
    [
        ([], 0, False),
        (attempts(40, 41), 2, False),
        (attempts(40, 44, 41), 3, True),  # the clip kills its workers
        (attempts(40, 300, 41), 1, False),  # somebody else does
        (attempts(40, 48), 2, False),  # as far as a worker reads ahead
        (attempts(40, 49), 1, False),
        (attempts(40, 41) + attempts(40, during="write"), 1, False),
        (attempts(5, 300, 40, 44, 41), 3, True),
        (attempts(*range(0, 900, 100)), 1, False),
        (attempts(*range(0, 1000, 100)), 1, True),  # but not for ever
        ([{"during": "find", "reason": "no video", "final": True}], 1, True),
    ],
)
def test_a_clip_is_given_up_where_it_fails_at_the_same_frame(failed, alike, given_up):
    state = ClipState(Clip("a", "a.mp4", 1, "digest"), attempts=failed)
    assert (state.alike, state.given_up) == (alike, given_up)
