"""Frames that are pushed from outside run through like any others."""

import threading

import numpy as np
import pytest

from ape_stream.pipeline import Pipeline
from ape_stream.sources.push import PushSource
from ape_stream.testing import OraclePerceiver
from ape_stream.types import PromptSet

PROMPTS = PromptSet.of("cup")


def picture(value=0):
    return np.full((16, 16, 3), value, np.uint8)


@pytest.mark.parametrize("live", [True, False])
def test_pushed_frames_come_out_and_the_books_balance(live):
    source = PushSource("robot", live=live)

    def feed():
        for k in range(200):
            assert source.push(picture(k % 256), k / 30, origin=f"{k}.png")
        source.end()

    feeder = threading.Thread(target=feed)
    feeder.start()
    run = Pipeline([source], OraclePerceiver(), PROMPTS)
    frames = [result.frame for result in run]
    feeder.join(10)
    indices = [frame.index for frame in frames]
    stats = run.stats()
    assert stats.captured == 200 == stats.published + stats.dropped
    assert indices == sorted(set(indices))
    assert frames[-1].index == 199
    assert frames[-1].origin == "199.png"
    assert frames[-1].time_s == pytest.approx(199 / 30)
    if not live:
        assert indices == list(range(200))


def test_push_says_when_the_run_is_over():
    source = PushSource("robot")
    with source:
        pass
    assert source.push(picture(), 0.0) is False


def test_push_after_end_is_refused():
    source = PushSource("robot")
    source.end()
    assert source.push(picture(), 0.0) is False
    assert source.frame_count is None


def test_a_blocked_push_is_freed_by_the_end_of_the_run():
    source = PushSource("robot", live=False)
    assert source.push(picture(), 0.0)
    answers = []
    blocked = threading.Thread(target=lambda: answers.append(source.push(picture(), 0.1)))
    blocked.start()
    with source:
        pass
    blocked.join(5)
    assert answers == [False]
