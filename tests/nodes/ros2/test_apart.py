"""The node in a process of its own, controlled and observed from here through a real rclpy."""

import importlib
import re
import signal
import time

import numpy as np
import pytest
from processes import Peer
from ros_bench import PATIENCE_S

from ape_nodes.ros2.encoder import byte_array
from ape_nodes.ros2.space.results import SPACE_TOPICS
from ape_nodes.ros2.topics import DIAGNOSTICS, OUTPUTS

pytestmark = pytest.mark.ros
SPECS = {spec.name: spec for spec in OUTPUTS}
# Without those of frames with depth, and those whose message has no header.
OF_EVERY_FRAME = SPECS.keys() - {*SPACE_TOPICS, "annotations"}
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = 1, 2, 3, 4
PROMPTS = ("--ros-args", "-p", "perceiver:=oracle", "-p", "prompts:=['cat', 'dog']")
PIXELS = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)


def test_the_end_of_a_test_removes_its_readers(world):
    """Another test may get the same domain at once, and its node would be read by them."""
    helper = world.helper
    world.listen("ape/detections", SPECS["detections"])
    (reader,) = helper.subscriptions
    world.end()
    assert not list(helper.subscriptions)
    with pytest.raises(Exception, match="destruction"):
        reader.handle.__enter__()


def ask(world, kind, name, **fields):
    """What a service of the node answers."""
    package, service = kind.split("/")
    made = getattr(__import__(f"{package}.srv", fromlist=[service]), service)
    client = world.helper.create_client(made, f"/ape/{name}")
    answer = None
    try:
        assert client.wait_for_service(PATIENCE_S), f"{name} is not offered"
        # The node must have discovered who waits for the answer, too: else it is dropped silently.
        world.pass_time(0.3)
        answer = client.call_async(made.Request(**fields))
        world.until(answer.done)
        return answer.result()
    finally:
        world.helper.destroy_client(client)


def change(world, step):
    from lifecycle_msgs.msg import Transition  # noqa: PLC0415 (with ROS alone)

    asked = Transition(id=step)
    return ask(world, "lifecycle_msgs/ChangeState", "change_state", transition=asked).success


def state(world):
    return ask(world, "lifecycle_msgs/GetState", "get_state").current_state.label


def set_parameters(world, **values):
    given = [
        world.Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
    ]
    results = ask(world, "rcl_interfaces/SetParameters", "set_parameters", parameters=given).results
    return [(one.successful, one.reason) for one in results]


def noise(world):
    """Noise, so that every misplaced byte is noticed."""
    height, width = PIXELS.shape[:2]
    message = world.message("sensor_msgs/msg/Image")(
        height=height,
        width=width,
        encoding="bgr8",
        step=3 * width,
        data=byte_array(PIXELS.tobytes()),
    )
    message.header.frame_id = "lens"
    message.header.stamp.sec, message.header.stamp.nanosec = 1_700_000_000, 123_456_789
    return message


def texts(info):
    return [entry.class_name for entry in info.class_map]


def test_services_lead_it_through_its_states(world):
    labels = []
    kind = world.message("lifecycle_msgs/msg/TransitionEvent")
    world.helper.create_subscription(
        kind, "/ape/transition_event", lambda m: labels.append(m.goal_state.label), 10
    )
    with Peer("ape_process.py", *PROMPTS):
        assert state(world) == "unconfigured"
        for step in (CONFIGURE, ACTIVATE, DEACTIVATE, ACTIVATE, DEACTIVATE, CLEANUP):
            assert change(world, step)
        assert state(world) == "unconfigured"
        steady = lambda: [one for one in labels if not one.endswith(("ing", "up"))]  # noqa: E731
        wanted = ["inactive", "active", "inactive", "active", "inactive", "unconfigured"]
        # The answer of a service may overtake the event.
        world.until(lambda: len(steady()) >= len(wanted))
    assert steady() == wanted


def test_a_transition_that_the_state_does_not_have_is_refused(world):
    with Peer("ape_process.py", *PROMPTS):
        assert not change(world, ACTIVATE)
        assert state(world) == "unconfigured"
        assert change(world, CONFIGURE)
        assert not change(world, CONFIGURE)
        assert state(world) == "inactive"


def test_results_have_the_header_of_their_image(world):
    world.camera(image=noise)
    seen = {name: world.listen(f"/ape/{name}", SPECS[name]) for name in OF_EVERY_FRAME}
    reports = world.listen("/diagnostics", DIAGNOSTICS)
    with Peer("ape_process.py", "--autostart", *PROMPTS) as ape:
        world.until(lambda: all(seen.values()) and len(reports) > 2)
        for messages in seen.values():
            stamp = messages[0].header.stamp
            assert (stamp.sec, stamp.nanosec) == (1_700_000_000, 123_456_789)
            assert messages[0].header.frame_id == "lens"
        found = seen["detections"][0].detections
        assert [one.results[0].hypothesis.class_id for one in found] == ["cat", "dog"]
        for name in ("label_image", "instance_image"):
            image = seen[name][0]
            assert set(np.frombuffer(image.data, "<u2")) == {0, 1, 2}
        overlay = np.frombuffer(seen["overlay"][0].data, np.uint8).reshape(PIXELS.shape)
        untouched = np.all(overlay == PIXELS, axis=2)
        assert untouched.any(), "pixels without a mask are those that were sent"
        late = world.listen("/ape/label_info", SPECS["label_info"])
        world.until(lambda: late)
        assert texts(late[0]) == ["cat", "dog"]
        status = reports[-1].status[0]
        assert (status.name, status.level, status.message) == ("/ape", b"\0", "active")
        ape.process.send_signal(signal.SIGINT)
        assert ape.process.wait(PATIENCE_S) == 0


def test_parameters_are_set_and_refused_with_a_reason(world):
    world.camera()
    names = world.listen("/ape/label_info", SPECS["label_info"])
    found = world.listen("/ape/detections", SPECS["detections"])
    with Peer("ape_process.py", "--autostart", *PROMPTS):
        world.until(lambda: found)
        assert set_parameters(world, prompts=["bird"]) == [(True, "")]
        world.until(lambda: texts(names[-1]) == ["bird"])
        for values, reason in (
            ({"prompts": ["", "cat"]}, "a prompt is empty"),
            ({"prompts": "cat"}, "type"),
            ({"score_threshold": 1.7}, "range"),
            ({"device": "cuda"}, "read-only"),
        ):
            ((successful, given),) = set_parameters(world, **values)
            assert not successful
            assert reason in given
        asked = {"names": ["prompts", "score_threshold"]}
        got = ask(world, "rcl_interfaces/GetParameters", "get_parameters", **asked).values
        assert got[0].string_array_value == ["bird"]
        assert got[1].double_value == 0.0
        (span,) = ask(world, "rcl_interfaces/DescribeParameters", "describe_parameters",
                      names=["score_threshold"]).descriptors[0].floating_point_range  # fmt: skip
        assert (span.from_value, span.to_value) == (0.0, 1.0)


def test_prompts_by_topic_are_received_without_a_warning(world, capfd):
    """`ros2 topic pub` is volatile; only one of the two subscriptions matches it."""
    world.camera()
    names = world.listen("/ape/label_info", SPECS["label_info"])
    world.listen("/ape/detections", SPECS["detections"])
    kind = world.message("std_msgs/msg/String")
    sender = world.helper.create_publisher(kind, "/ape/prompts", 1)
    with Peer("ape_process.py", "--autostart", *PROMPTS):
        world.until(lambda: names and sender.get_subscription_count() == 1)
        sender.publish(kind(data="bird, dog"))
        world.until(lambda: texts(names[-1]) == ["bird", "dog"])
    assert "New publisher discovered" not in capfd.readouterr().err, "the node warns"


def test_it_can_be_paused_by_a_service(world):
    camera = world.camera()
    found = world.listen("/ape/detections", SPECS["detections"])
    with Peer("ape_process.py", "--autostart", *PROMPTS):
        world.until(lambda: found)
        assert ask(world, "std_srvs/SetBool", "enable", data=False).message == "disabled"
        world.until(lambda: camera.get_subscription_count() == 0)
        assert ask(world, "std_srvs/SetBool", "enable", data=True).success
        world.until(lambda: camera.get_subscription_count() == 1)


def test_qos_can_be_overridden_by_a_file(world, tmp_path):
    """With the file of docs/ros2.md."""
    document = (Peer.ROOT / "docs/ros2.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", document, re.DOTALL)
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("max_rate: 10.0", "perceiver: oracle"))
    with Peer("ape_process.py", "--autostart", "--params", path):
        world.until(lambda: world.helper.count_publishers("/ape/label_image") == 1)
        (image,) = world.helper.get_publishers_info_by_topic("/ape/label_image")
        (found,) = world.helper.get_publishers_info_by_topic("/ape/detections")
    assert image.qos_profile.reliability == world.qos.ReliabilityPolicy.BEST_EFFORT
    assert found.qos_profile.reliability == world.qos.ReliabilityPolicy.RELIABLE


def test_node_and_camera_may_be_killed_and_start_again(world):
    found = world.listen("/ape/detections", SPECS["detections"])
    names = world.listen("/ape/label_info", SPECS["label_info"])
    with Peer("rclpy_peer.py", "camera", "/image"):
        for words in (["cat"], ["dog", "bird"]):  # with SIGKILL
            with Peer("ape_process.py", "--autostart", *PROMPTS[:3], "-p", f"prompts:={words}"):
                world.until(lambda words=words: names and texts(names[-1]) == words)
                found.clear()
                world.until(lambda: found)
                assert len(found[0].detections) == len(words)
    with Peer("ape_process.py", "--autostart", *PROMPTS):
        for _ in range(2):
            with Peer("rclpy_peer.py", "camera", "/image"):
                found.clear()
                world.until(lambda: found)
            time.sleep(0.2)
            found.clear()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_disturb_the_shutdown(world, number):
    """`timeout` and supervisors signal a process and its group: the second comes at once."""
    world.camera()
    names = world.listen("/ape/label_info", SPECS["label_info"])
    world.listen("/ape/detections", SPECS["detections"])
    for words in (["cat"], ["dog"], ["bird"]):
        with Peer("ape_process.py", "--autostart", *PROMPTS[:3], "-p", f"prompts:={words}") as ape:
            world.until(lambda words=words: names and texts(names[-1]) == words)
            ape.process.send_signal(number)
            time.sleep(0.005)
            ape.process.send_signal(number)
            assert ape.process.wait(PATIENCE_S) == 0


def test_a_subscription_may_end_while_the_executor_collects_what_to_wait_for(world, monkeypatch):
    """As that of a call of ~/detect may, in a thread of its own: rclpy's executors die of it."""
    events = importlib.import_module("rclpy.event_handler")
    watched = events.SubscriptionEventCallbacks(matched=lambda _: None)
    kind, qos = world.message("sensor_msgs/msg/Image"), world.ros_rclpy.rclpy_qos(SPECS["overlay"])
    reader = world.helper.create_subscription(
        kind, "coming", lambda _: None, qos, event_callbacks=watched
    )
    collect = events.EventHandler.add_to_wait_set
    ended = []

    def end_first(self, wait_set):
        if not ended and self in reader.event_handlers:
            ended.append(world.helper.destroy_subscription(reader))
        return collect(self, wait_set)

    monkeypatch.setattr(events.EventHandler, "add_to_wait_set", end_first)
    world.pass_time(0.3)
    assert ended == [True]
