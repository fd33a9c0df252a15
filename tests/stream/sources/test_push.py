"""Frames that are pushed from outside run through like any others."""

import threading

import numpy as np
import pytest

from ape_stream.errors import UsageError
from ape_stream.pipeline import Pipeline
from ape_stream.protocols import KnowsFrameCount
from ape_stream.sources.push import PushSource
from ape_stream.testing import OraclePerceiver
from ape_stream.trackers.iou import IouTracker
from ape_stream.types import Instances, Mask, PromptSet

PROMPTS = PromptSet.of("cup")


def image(value=0):
    return np.full((16, 16, 3), value, np.uint8)


@pytest.mark.parametrize("live", [True, False])
def test_pushed_frames_come_out_and_the_books_balance(live):
    source = PushSource("robot", live=live)

    def feed():
        for k in range(200):
            assert source.push(image(k % 256), k / 30, origin=f"{k}.png")
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
    assert source.push(image(), 0.0) is False


def test_push_after_end_is_refused():
    source = PushSource("robot")
    source.end()
    assert source.push(image(), 0.0) is False
    assert not isinstance(source, KnowsFrameCount)


def test_a_blocked_push_is_freed_by_the_end_of_the_run():
    source = PushSource("robot", live=False)
    assert source.push(image(), 0.0)
    answers = []
    blocked = threading.Thread(target=lambda: answers.append(source.push(image(), 0.1)))
    blocked.start()
    with source:
        pass
    blocked.join(5)
    assert answers == [False]


@pytest.mark.parametrize(
    ("given", "time_s", "says"),
    [
        (None, 0.0, "an image is a NumPy array, .* got NoneType"),  # what OpenCV reads at the end
        (np.zeros((16, 16, 3)), 0.0, "multiply values of 0..1 by 255"),
        (np.zeros((3, 16, 20), np.uint8), 0.0, "channels last"),
        (np.zeros((16, 16, 3), np.uint16), 0.0, "divide values of 16 bits"),
        (image(), "0", "time is a number of seconds"),
    ],
)
def test_what_is_no_frame_is_refused_and_leaves_no_gap(given, time_s, says):
    source = PushSource("mine", live=True)
    with pytest.raises(UsageError, match=says):
        source.push(given, time_s)
    source.push(np.zeros((16, 16), np.uint8), 0.0)
    assert next(iter(source)).index == 0


@pytest.mark.parametrize("time_s", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_time_out_of_range_costs_its_frame_and_not_the_run(time_s):
    source = PushSource("robot", live=False)

    def feed():
        source.push(image(), 0.0)
        with pytest.raises(UsageError, match="a frame's time is 0 to"):
            source.push(image(), time_s)
        source.push(image(), 0.1)
        source.end()

    feeder = threading.Thread(target=feed)
    feeder.start()
    frames = [result.frame for result in Pipeline([source], OraclePerceiver(), PROMPTS)]
    feeder.join(10)
    assert [(frame.index, frame.time_s) for frame in frames] == [(0, 0.0), (1, 0.1)]


class Still:
    """Finds the same cup in every frame."""

    def prepare(self, prompts):
        """Any prompts will do."""

    def perceive(self, frames):
        one = np.ones((8, 8), np.bool_)
        return [
            Instances(
                boxes=np.array([[2, 2, 10, 10]], np.float32),
                scores=np.array([0.9], np.float32),
                prompt_ids=np.zeros(1, np.int64),
                masks=(Mask(one, 2, 2),),
                size=frame.size,
            )
            for frame in frames
        ]


def test_a_sender_that_begins_again_goes_on_in_a_new_segment_with_new_tracks():
    source = PushSource("robot", live=False)

    def feed():
        for k in range(20):
            source.push(image(), (k % 10) / 10)
        source.end()

    feeder = threading.Thread(target=feed)
    feeder.start()
    results = list(Pipeline([source], Still(), PROMPTS, tracker=IouTracker))
    feeder.join(10)
    assert source.restarts == 1
    times = np.array([result.frame.time_s for result in results])
    np.testing.assert_allclose(times, np.arange(20) / 10, atol=0.5)
    assert (np.diff(times) > 0).all()
    assert [result.frame.segment for result in results] == [0] * 10 + [1] * 10
    first, second = (
        {int(i) for r in part for i in r.instances.track_ids if i}
        for part in (results[:10], results[10:])
    )
    assert first
    assert second
    assert not first & second
