"""The `ros2` source with messages that a fake backend delivers."""

import time

import numpy as np
import pytest

pytest.importorskip("rosbags")

from ape_nodes.ros2 import source as ros_source
from ape_nodes.ros2.bags.sink import BagSink
from ape_nodes.ros2.bags.source import BagSource
from ape_nodes.ros2.messages import RosFrame
from ape_nodes.ros2.source import Ros2Source
from ape_nodes.ros2.types import plain_encoder, type_store
from ape_stream.errors import SourceError

ENCODER = plain_encoder(type_store())
PIXELS = np.zeros((4, 6, 3), np.uint8)
START = 1_700_000_000 * 10**9


def an_image(stamp_ns, encoding="bgr8"):
    message = ENCODER.image(ENCODER.header(RosFrame(PIXELS, 0, 0.0, stamp_ns=stamp_ns)), PIXELS)
    message.encoding = encoding
    return message


class FakeNode:
    """A node whose reader delivers these messages, one at a time."""

    def __init__(self, messages):
        self._messages = list(messages)

    def reader(self, _topic, _spec):
        return self

    def take(self, timeout_s):
        if not self._messages:
            time.sleep(timeout_s)
            return
        yield self._messages.pop(0)

    def close(self):
        pass


def frames_of(messages, monkeypatch):
    monkeypatch.setattr(ros_source, "choose", lambda _: "dds")
    monkeypatch.setattr(ros_source, "open_node", lambda *_: FakeNode(messages))
    frames = []
    with Ros2Source("ros2:///camera", timeout_s=0.3) as source:
        with pytest.raises(SourceError, match="no image came"):
            frames.extend(source)
        return frames, source.stats()


def test_stamps_that_step_back_begin_a_new_segment(monkeypatch):
    """A bag that is played again: its stamps are kept, the stream's clock goes on."""
    stamps = [START + k * 10**8 for k in (0, 1, 2, 0, 1, 2)]
    frames, stats = frames_of(map(an_image, stamps), monkeypatch)
    assert [frame.stamp_ns for frame in frames] == stamps
    assert [frame.segment for frame in frames] == [0, 0, 0, 1, 1, 1]
    times = [frame.time_s for frame in frames]
    assert times == sorted(set(times))
    assert stats == {"received": 6, "unreadable": 0, "restarts": 1}


def test_images_that_cannot_be_used_are_left_out_and_counted(monkeypatch, caplog):
    messages = [an_image(START), an_image(-(10**9)), an_image(START + 1, "poem")]
    frames, stats = frames_of([*messages, an_image(START + 10**8)], monkeypatch)
    assert [frame.index for frame in frames] == [0, 3]
    assert stats == {"received": 4, "unreadable": 2, "restarts": 0}
    assert caplog.text.count("image left out") == 2


def test_a_bag_whose_stamps_step_back_is_read_to_its_end(tmp_path):
    stamps = [START + k * 10**8 for k in (5, 6, 0, 1)]
    with BagSink(f"bag:{tmp_path / 'run'}") as sink:
        for k, stamp_ns in enumerate(stamps):
            sink.record("cam/image", an_image(stamp_ns), START + k)
    with BagSource(f"bag://{tmp_path / 'run'}") as source:
        frames = list(source)
    assert [frame.stamp_ns for frame in frames] == stamps
    assert [frame.segment for frame in frames] == [0, 0, 1, 1]
    assert [round(frame.time_s - frames[0].time_s, 3) for frame in frames] == [0, 0.1, 0.2, 0.3]
