"""The node against a real rclpy; skipped where ROS 2 is not installed."""

import random
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation")
pytest.importorskip("vision_msgs", reason="needs ros-*-vision-msgs")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray, LabelInfo

from ape_nodes import ros_node
from ape_nodes.push import SharedModel
from ape_nodes.ros_messages import as_array
from ape_nodes.ros_topics import OUTPUTS
from ape_stream.testing import OraclePerceiver

pytestmark = pytest.mark.ros


@pytest.fixture
def spun(monkeypatch):
    """A configured and active node, a helper node, and a way to let time pass."""
    monkeypatch.setattr(ros_node, "make", lambda *_, **__: OraclePerceiver())
    rclpy.init(domain_id=random.randint(1, 100))
    node, helper = ros_node.ApeNode("ape", SharedModel()), rclpy.create_node("helper")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(helper)

    def until(condition, timeout_s=15.0):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline
            executor.spin_once(timeout_sec=0.05)

    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        yield node, helper, until
    finally:
        node.trigger_deactivate()
        node.trigger_cleanup()
        rclpy.try_shutdown()


def picture():
    pixels = np.zeros((24, 32, 3), np.uint8)
    message = Image(height=24, width=32, encoding="bgr8", step=96, data=as_array(pixels.tobytes()))
    message.header.frame_id = "lens"
    message.header.stamp.sec, message.header.stamp.nanosec = 1_700_000_000, 7
    return message


def test_pictures_in_detections_out_only_while_somebody_listens(spun):
    node, helper, until = spun
    camera = helper.create_publisher(Image, "image", 5)
    until(lambda: True)
    assert camera.get_subscription_count() == 0
    seen, names = [], []
    qos = {spec.name: ros_node._qos(spec) for spec in OUTPUTS}
    helper.create_subscription(LabelInfo, "ape/label_info", names.append, qos["label_info"])
    listening = helper.create_subscription(
        Detection2DArray, "ape/detections", seen.append, qos["detections"]
    )
    until(lambda: camera.get_subscription_count() == 1)
    helper.create_timer(0.1, lambda: camera.publish(picture()))
    until(lambda: seen and names)
    assert seen[0].header.stamp.nanosec == 7
    assert seen[0].header.frame_id == "lens"
    assert seen[0].detections[0].results[0].hypothesis.class_id == "person"
    assert node.set_parameters([Parameter("prompts", value=["cat"])])[0].successful
    until(lambda: names[-1].class_map[0].class_name == "cat")
    assert listening is not None


@pytest.mark.parametrize(
    ("name", "value"), [("prompts", ["", "cat"]), ("score_threshold", 1.7), ("device", "cuda")]
)
def test_wrong_values_are_refused_with_a_reason(spun, name, value):
    node, _, _ = spun
    outcome = node.set_parameters([Parameter(name, value=value)])[0]
    assert not outcome.successful
    assert outcome.reason


def test_the_model_outlives_a_deactivation(spun):
    node, _, _ = spun
    held = node._model._perceiver
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert node._model._perceiver is held
