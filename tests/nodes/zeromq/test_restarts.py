"""Senders of frames that start again, or send impossible times: the run goes on."""

import contextlib
import math
import threading
import time

import numpy as np
import pytest

from ape_nodes.zeromq.sink import FrameSender
from ape_nodes.zeromq.source import ZmqSource
from ape_stream.pipeline import Pipeline
from ape_stream.testing import OraclePerceiver
from ape_stream.trackers.iou import IouTracker
from ape_stream.types import Frame, Instances, Mask, PromptSet

LOOPBACK = "tcp://127.0.0.1:*"


class Killed(Exception):  # noqa: N818
    pass


def a_frame(index, time_s):
    return Frame(np.zeros((24, 32, 3), np.uint8), index, time_s, "theirs")


def send(endpoint, frames, *, ends=False):
    """Send frames as one process does; without an end it dies before it can send one."""
    with contextlib.suppress(Killed), FrameSender(endpoint) as sender:
        for frame in frames:
            sender.send(frame)
        if not ends:
            raise Killed


def still(frame, _prompts):
    """One region that does not move."""
    box = np.array([[4, 4, 12, 12]], np.float32)
    one = np.ones(1, np.float32), np.zeros(1, np.int64), (Mask(np.ones((8, 8), np.bool_), 4, 4),)
    return Instances(box, *one, frame.size)


@pytest.mark.parametrize(
    ("out", "into"), [("push+connect", "pull+bind"), ("dealer+connect", "router+bind")]
)
def test_a_sender_that_starts_again_begins_a_new_segment(out, into):
    """Times and indices from 0 again: 20 of 20 frames, in order, and no track goes on."""
    source = ZmqSource(f"zmq://{into}:{LOOPBACK}", name="cam", timeout_s=10)
    run = Pipeline([source], OraclePerceiver(still), PromptSet.of("x"), tracker=IouTracker)
    with run:
        endpoint = f"{out}:{source.address}"
        frames = [a_frame(k, k / 10) for k in range(10)]

        def senders():
            send(endpoint, frames)
            while source.stats()["received"] < 10:  # else both may be read in turns
                time.sleep(0.01)
            send(endpoint, frames, ends=True)

        sending = threading.Thread(target=senders)
        sending.start()
        results = list(run)
        sending.join()
        stats = source.stats()
    got = [result.frame for result in results]
    assert [frame.index for frame in got] == list(range(20))
    assert [frame.segment for frame in got] == [0] * 10 + [1] * 10
    times = [frame.time_s for frame in got]
    assert times[:10] == pytest.approx([k / 10 for k in range(10)])
    assert times == sorted(set(times))
    assert np.diff(times[10:]) == pytest.approx([0.1] * 9)
    ids = [int(result.instances.track_ids[0]) for result in results]
    assert ids == [0] + [1] * 9 + [0] + [2] * 9
    assert (stats["restarts"], stats["time_restarts"], stats["missed"]) == (1, 1, 0)


def test_impossible_times_are_refused_one_frame_at_a_time(caplog):
    source = ZmqSource(f"zmq://pull+bind:{LOOPBACK}", timeout_s=10)
    times = [0.0, -5.0, 1e300, math.nan, math.inf, 0.1]
    frames = [a_frame(k, time_s) for k, time_s in enumerate(times)]
    with Pipeline([source], OraclePerceiver(), PromptSet.of("x"), tracker=IouTracker) as run:
        endpoint = f"push+connect:{source.address}"
        sending = threading.Thread(target=send, args=(endpoint, frames), kwargs={"ends": True})
        sending.start()
        results = list(run)
        sending.join()
        stats = source.stats()
    assert [result.frame.time_s for result in results] == [0.0, 0.1]
    assert [result.frame.index for result in results] == [0, 5]
    assert (stats["refused"], stats["time_restarts"]) == (4, 0)
    assert "a frame's time is" in caplog.text
