"""The `ros2` source and sink with either backend."""

import threading

import numpy as np
import pytest
from ros_bench import BACKENDS, World, an_image

from ape_nodes.ros2 import backend as ros_backend
from ape_nodes.ros2.sink import Ros2Sink
from ape_nodes.ros2.source import Ros2Source
from ape_nodes.ros2.topics import DIAGNOSTICS, OUTPUTS
from ape_stream.errors import ConfigError, PluginError, SourceError
from ape_stream.pipeline import Pipeline
from ape_stream.testing import OraclePerceiver
from ape_stream.types import PromptSet

SPECS = {spec.name: spec for spec in OUTPUTS}


@pytest.fixture(params=BACKENDS)
def world(request, monkeypatch):
    made = World(request.param, monkeypatch)
    monkeypatch.setattr(ros_backend, "find_spec", lambda name: name == "rclpy" or None)
    made.start()
    yield made
    made.end()


def test_images_in_results_out_through_rclpy(world):
    source = Ros2Source("ros2:///camera/image_raw", timeout_s=20)
    sink = Ros2Sink("ros2:/robot/ape", mask_encoding="mono8")
    run = Pipeline([source], OraclePerceiver(), PromptSet.of("red apple, dog"), sinks=[sink])
    world.camera("/camera/image_raw", image=lambda w: an_image(w, 7))
    seen = {name: world.listen(f"/robot/ape/{name}", SPECS[name])
            for name in ("label_info", "detections", "label_image")}  # fmt: skip
    reports = world.listen("/diagnostics", DIAGNOSTICS)
    with run:
        looping = threading.Thread(target=lambda: [None for _ in run])
        looping.start()
        world.until(lambda: all(seen.values()) and reports)
        run.stop()
        looping.join(10)
    (first, *_) = seen["detections"]
    assert [d.results[0].hypothesis.class_id for d in first.detections] == ["red apple", "dog"]
    assert (first.header.frame_id, first.header.stamp.nanosec) == ("lens", 7)
    image = seen["label_image"][0]
    assert image.encoding == "mono8"
    assert set(np.frombuffer(image.data, np.uint8)) == {0, 1, 2}
    assert [c.class_name for c in seen["label_info"][0].class_map] == ["red apple", "dog"]
    assert reports[0].status[0].name == "/robot/ape"


def test_silence_is_reported_and_a_source_can_be_opened_again(world):
    assert world.rclpy.ok()
    source = Ros2Source("ros2:///nobody", timeout_s=0.3)
    for _ in range(2):
        with source, pytest.raises(SourceError, match="no image came"):
            next(iter(source))
    assert world.rclpy.ok(), "the context of others is untouched"


@pytest.mark.parametrize(
    ("installed", "asked", "chosen"),
    [
        ({"cyclonedds", "rclpy"}, "auto", "dds"),
        ({"rclpy"}, "auto", "rclpy"),
        ({"cyclonedds", "rclpy"}, "rclpy", "rclpy"),
    ],
)
def test_the_backend_is_chosen_by_what_is_installed(monkeypatch, installed, asked, chosen):
    monkeypatch.setattr(ros_backend, "find_spec", lambda name: name in installed or None)
    assert ros_backend.choose(asked) == chosen


@pytest.mark.parametrize("asked", ["auto", "dds", "rclpy"])
def test_without_a_backend_it_says_what_to_install(monkeypatch, asked):
    monkeypatch.setattr(ros_backend, "find_spec", lambda _: None)
    with pytest.raises(PluginError, match=r"ape-stream\[dds\].*source a ROS 2"):
        Ros2Sink("ros2:/ape", backend=asked)
    with pytest.raises(ConfigError, match="none of auto, dds, rclpy"):
        Ros2Source("ros2:///image", backend="zenoh")
