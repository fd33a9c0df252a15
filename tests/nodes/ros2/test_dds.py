"""Real ROS 2 topics between processes over loopback, without ROS."""

import contextlib
import threading
import time

import numpy as np
import processes
import pytest

pytest.importorskip("cyclonedds")

from cyclonedds import _clayer

from ape_nodes.ros2.dds.backend import DdsNode
from ape_nodes.ros2.sink import Ros2Sink
from ape_nodes.ros2.source import Ros2Source
from ape_nodes.ros2.topics import TopicSpec
from ape_stream.errors import SourceError
from ape_stream.pipeline import Pipeline
from ape_stream.testing import OraclePerceiver
from ape_stream.types import PromptSet


@pytest.fixture(autouse=True)
def _domain(monkeypatch):
    """A domain of our own on loopback."""
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    number, holder = processes.claim_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    yield
    holder.close()


class Peer(processes.Peer):
    def __init__(self, *arguments):
        super().__init__("dds_peer.py", *arguments)


def test_images_in_results_out_and_every_side_restarts():
    """The peers of one node start late, are killed and start again."""
    source = Ros2Source("ros2:///camera/image_raw", timeout_s=100)
    sink = Ros2Sink("ros2:/robot/ape")
    run = Pipeline([source], OraclePerceiver(), PromptSet.of("red apple, dog"), sinks=[sink])
    looping = threading.Thread(target=lambda: [None for _ in run])
    with run:
        looping.start()
        with Peer("camera") as camera, Peer("watch") as watcher:
            seen = watcher.lines(1)[0]
            assert seen["classes"] == ["red apple", "dog"]
            assert seen["ids"] == ["red apple", "dog"]
            assert seen["labels"] == [0, 1, 2]
            assert seen["frame_id"] == "lens"
            assert seen["stamp"] >= 1_700_000_000_000_000_001
            assert seen["stamp"] == seen["image_stamp"]
            assert camera.process.poll() is None
        # Both peers were killed, and others start.
        with Peer("camera"), Peer("watch", "bird") as watcher, Peer("health") as health:
            run.set_prompts("bird")
            seen = watcher.lines(1)[0]
            assert seen["classes"] == ["bird"]
            assert seen["ids"] == ["bird"]
            report = health.lines(2)[1]
            assert (report["name"], report["level"]) == ("/robot/ape", 0)
            assert report["values"]["prompts"] == "bird"
            assert int(report["values"]["published"]) > 0
            assert int(report["values"]["process_mib"]) > 10
            assert float(report["values"]["age_ms_p95"]) >= float(report["values"]["age_ms_p50"])
        run.stop()
        looping.join()


def test_the_node_is_killed_and_another_replaces_it():
    with Peer("camera"), Peer("watch") as watcher:
        for words in (["cat"], ["red apple", "dog"]):
            with Peer("ape", ", ".join(words)):  # killed with SIGKILL at the end
                seen = {}
                while (seen.get("classes"), seen.get("ids")) != (words, words):
                    seen = watcher.lines(1)[0]
                assert seen["labels"] == list(range(len(words) + 1))


def test_a_large_image_arrives_byte_for_byte():
    source = Ros2Source("ros2:///camera/image_raw", reliable=True, timeout_s=60)
    with source, Peer("camera", 1080, 1920):
        frame = next(iter(source))
    expected = np.random.default_rng(1).integers(0, 256, (1080, 1920, 3), np.uint8)
    np.testing.assert_array_equal(frame.image, expected)


def test_a_message_that_cannot_be_read_is_left_out_and_the_next_one_comes(caplog):
    node = DdsNode("both")
    spec = TopicSpec("", "std_msgs/msg/String", True, False, 5, False, "")
    writer, reader = node.writer("/words", spec), node.reader("/words", spec)
    word = node.store.types["std_msgs/msg/String"]
    for data in (b"\0\1\0\0\2\0\0\0\xe9\0\0\0", word(data="cat")):  # Latin-1, then good
        if isinstance(data, bytes):
            assert _clayer.ddspy_write(writer.entity._ref, data) == 0
        else:
            writer.write(data)
    seen = []
    while not seen:
        seen += reader.take(1.0)
    node.close()
    assert [message.data for message in seen] == ["cat"]
    assert "message left out: not a std_msgs/msg/String" in caplog.text


@pytest.mark.parametrize("topic", ["/camera/image_raw", "/nobody"])
def test_closing_from_another_thread_ends_the_loop_soon_and_without_an_error(topic):
    with Peer("camera") if topic != "/nobody" else contextlib.nullcontext():
        for turn in range(12):
            source, ended = Ros2Source(f"ros2://{topic}", timeout_s=60), []
            source.__enter__()
            loop = threading.Thread(target=lambda s=source, e=ended: e.append(len(list(s)) >= 0))
            loop.start()
            time.sleep(0.01 + 0.02 * turn)
            source.__exit__(None, None, None)
            loop.join(20.0)  # long before the timeout; a busy machine may take seconds
            assert ended == [True]


def test_silence_is_reported():
    with Ros2Source("ros2:///nobody", timeout_s=0.5) as source:
        start = time.monotonic()
        with pytest.raises(SourceError, match="no image came"):
            next(iter(source))
        assert time.monotonic() - start < 5
