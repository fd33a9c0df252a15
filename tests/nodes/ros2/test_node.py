"""The node: always with a strict fake of rclpy, and with the real one where ROS 2 is installed."""

import itertools
import threading
import time

import numpy as np
import pytest
import ros_perceivers
from ros_bench import BACKENDS, PATIENCE_S, STAMP, World, an_image, an_unreadable_image

from ape_nodes.ros2.topics import DIAGNOSTICS, INPUTS, OUTPUTS

SPECS = {spec.name: spec for spec in OUTPUTS}


@pytest.fixture(params=BACKENDS)
def world(request, monkeypatch):
    made = World(request.param, monkeypatch)
    made.start()
    yield made
    made.end()


def stamp(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


def labels(image):
    dtype = "<u2" if image.encoding == "mono16" else np.uint8
    return np.frombuffer(image.data, dtype).reshape(image.height, image.width)


# -- images in, results out ---------------------------------------------------------------------


def test_images_in_detections_out_only_while_an_output_has_a_reader(world):
    camera = world.camera()
    node = world.active()
    world.pass_time(1.2)
    assert camera.get_subscription_count() == 0, "no output has a reader"
    seen = world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: len(seen) > 2)
    assert camera.get_subscription_count() == 1
    assert seen[0].header.frame_id == "lens"
    assert seen[0].header.stamp.sec == STAMP[0]
    assert seen[0].detections[0].results[0].hypothesis.class_id == "person"
    assert seen[2].detections[0].id == "1", "confirmed at its second sighting"
    assert node.get_fully_qualified_name() == "/ape"


def test_a_reader_is_noticed_when_it_subscribes_and_when_it_leaves(world, monkeypatch):
    """By the matched event, not by the timer."""
    monkeypatch.setattr(world.ros_node, "POLL_S", 3600.0)
    camera = world.camera()
    world.active()
    spec = SPECS["detections"]
    kind = world.message(spec.type)
    qos = world.ros_rclpy.rclpy_qos(spec)
    reader = world.helper.create_subscription(kind, "ape/detections", lambda _: None, qos)
    world.until(lambda: camera.get_subscription_count() == 1)
    world.helper.destroy_subscription(reader)
    world.until(lambda: camera.get_subscription_count() == 0)


def test_a_node_that_is_stopped_while_a_reader_comes_is_not_subscribed(world, monkeypatch):
    node = world.active()
    subscribe, stopping = node.images.subscribe, threading.Thread(target=node.stop)

    def meanwhile():
        stopping.start()
        stopping.join(0.2)  # it waits for the subscription, and ends it
        subscribe()

    monkeypatch.setattr(node.images, "subscribe", meanwhile)
    world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: stopping.ident)
    stopping.join(PATIENCE_S)
    assert not node.is_subscribed


def test_names_come_before_the_first_frame_they_apply_to(world, monkeypatch):
    node, order = world.active(), []
    publish = node.publish
    monkeypatch.setattr(node, "publish", lambda n, m: (order.append((n, m)), publish(n, m)))
    world.camera()
    infos = world.listen("ape/label_info", SPECS["label_info"])
    found = world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: found)
    change = world.Parameter("prompts", value=["cat", "red apple"])
    assert node.set_parameters([change])[0].successful
    world.until(lambda: len(found[-1].detections) == 2)
    assert [c.class_name for c in infos[0].class_map] == ["person"]
    assert [(c.class_id, c.class_name) for c in infos[1].class_map] == [
        (1, "cat"),
        (2, "red apple"),
    ]
    first = next(message for message in found if len(message.detections) == 2)
    assert stamp(infos[1]) == stamp(first)
    assert len(infos) == 2
    names = [(name, stamp(message)) for name, message in order]
    assert names.index(("label_info", stamp(first))) < names.index(("detections", stamp(first)))


def test_masks_and_overlays_are_made_for_their_readers(world):
    world.active(prompts=["cat", "dog"], mask_encoding="mono8")
    world.camera()
    names = ("detections", "label_image", "instance_image", "overlay", "overlay/compressed")
    seen = {name: world.listen(f"ape/{name}", SPECS[name]) for name in names}
    world.until(lambda: all(seen.values()))
    assert seen["label_image"][0].encoding == "mono8"
    assert set(np.unique(labels(seen["label_image"][0]))) == {0, 1, 2}
    assert set(np.unique(labels(seen["instance_image"][0]))) == {0, 1, 2}
    assert seen["overlay"][0].encoding == "bgr8"
    assert seen["overlay/compressed"][0].format == "bgr8; jpeg compressed bgr8"
    times = {stamp(message) for message in seen["detections"]}
    assert {stamp(message) for message in seen["label_image"]} <= times


def test_compressed_outputs_can_be_left_out(world):
    node = world.active(publish_compressed=False)
    assert not any(name.endswith("/compressed") for name in node.output_names)
    seen = world.listen("ape/label_image", SPECS["label_image"])
    world.camera()
    world.until(lambda: seen)


def test_a_late_reader_gets_the_names(world):
    world.active()
    world.camera()
    first = world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: first)
    late = world.listen("ape/label_info", SPECS["label_info"])
    world.until(lambda: late)
    assert late[0].class_map[0].class_name == "person"


@pytest.mark.parametrize(
    ("rule", "topic"),
    [
        ("image:=/camera/image_raw", "/camera/image_raw/compressed"),
        ("image/compressed:=/usb/jpeg", "/usb/jpeg"),
    ],
)
def test_a_remapping_of_the_image_applies_to_compressed_ones(world, rule, topic):
    node = world.active(image_transport="compressed", cli_args=["--ros-args", "-r", rule])
    world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: node.is_subscribed)
    kind = world.message("sensor_msgs/msg/CompressedImage")
    assert world.helper.create_publisher(kind, topic, 5).get_subscription_count() == 1


def test_the_rate_can_be_limited(world):
    node = world.active(max_rate=5.0)
    world.camera(period_s=0.01)
    seen = world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: seen)
    count, start = len(seen), time.monotonic()
    world.pass_time(2.0)
    hz = (len(seen) - count) / (time.monotonic() - start)
    assert 2 < hz < 7
    assert node.images.watch.skipped > 20
    assert node.set_parameters([world.Parameter("max_rate", value=0.0)])[0].successful
    count = len(seen)
    world.until(lambda: len(seen) > count + 20)


def test_images_that_cannot_be_read_are_counted_and_left_out(world):
    node = world.active()
    world.camera(image=an_unreadable_image)
    world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: node.images.watch.unreadable > 2)
    assert node.state_name == "active"


def test_images_with_an_impossible_stamp_are_counted_and_left_out(world):
    def before_1970(world):
        message = an_image(world)
        message.header.stamp.sec = -1
        return message

    node = world.active()
    world.camera(image=before_1970)
    world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: node.images.watch.unreadable > 2)
    assert node.state_name == "active"


def test_stamps_that_step_back_do_not_end_the_run(world):
    """A bag that is played again, or a reset /clock."""
    secs = itertools.chain([5, 6, 7, 1, 2], itertools.count(3))

    def stepping(world):
        message = an_image(world)
        message.header.stamp.sec = next(secs)
        return message

    node = world.active()
    world.camera(image=stepping)
    seen = world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: seen and seen[-1].header.stamp.sec == 4)
    assert node.state_name == "active"
    assert node.last_error == ""


# -- states ---------------------------------------------------------------------------------------


def test_the_model_outlives_a_deactivation_and_a_cleanup_can_be_undone(world):
    node = world.active()
    held = node.perceiver.loaded
    assert node.trigger_deactivate() == world.Outcome.SUCCESS
    assert node.trigger_activate() == world.Outcome.SUCCESS
    assert node.perceiver.loaded is held
    assert node.trigger_deactivate() == world.Outcome.SUCCESS
    assert node.trigger_cleanup() == world.Outcome.SUCCESS
    assert node.perceiver.loaded is None
    assert node.trigger_configure() == world.Outcome.SUCCESS
    assert node.trigger_activate() == world.Outcome.SUCCESS
    seen = world.listen("ape/detections", SPECS["detections"])
    world.camera()
    world.until(lambda: seen)
    assert node.trigger_shutdown() == world.Outcome.SUCCESS
    assert node.perceiver.loaded is None


def test_deactivating_does_not_wait_for_a_frame_in_flight(world):
    node = world.active(perceiver="held")
    world.camera()
    world.listen("ape/detections", SPECS["detections"])
    world.until(ros_perceivers.HOLDING.is_set)
    start = time.monotonic()
    assert node.trigger_deactivate() == world.Outcome.SUCCESS
    assert time.monotonic() - start < 8
    ros_perceivers.GATE.set()
    assert node.trigger_cleanup() == world.Outcome.SUCCESS


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"perceiver": "absent"}, "no model is called that"),
        ({"perceiver": "buggy"}, "ZeroDivisionError: a mistake"),
        ({"perceiver": "nobody"}, "no perceiver is called 'nobody'"),
        ({"dtype": "bfloat16"}, "unknown option 'dtype'"),
        ({"canvas": 480}, "unknown option 'canvas'"),
        ({"mask_encoding": "mono4"}, "mono16, mono8"),
        ({"prompts": ["", "cat"]}, "empty"),
    ],
)
def test_a_failed_configuration_is_reported_and_can_be_tried_again(world, parameters, reason):
    node = world.node(**parameters)
    for _ in range(2):
        assert node.trigger_configure() == world.Outcome.FAILURE
        assert reason in node.last_error
    assert not node.output_names
    seen = world.listen("/diagnostics", DIAGNOSTICS)
    world.until(lambda: seen)
    assert reason in seen[-1].status[0].message


def test_options_reach_the_plugins_that_have_them(world):
    given = {"dtype": "bfloat16", "canvas": 480, "iou_track": 0.9}
    node = world.active(perceiver="halved", tracker="recording", **given)
    assert (node.perceiver.loaded.dtype, node.perceiver.loaded.canvas) == ("bfloat16", 480)
    assert ros_perceivers.RecordingTracker.options == {"min_iou": 0.9}


def test_a_canvas_of_zero_is_the_models_own(world):
    assert world.active(perceiver="halved").perceiver.loaded.canvas is None


def test_a_tracker_that_cannot_be_made_fails_the_activation(world):
    node = world.node(tracker="nobody")
    assert node.trigger_configure() == world.Outcome.SUCCESS
    assert node.trigger_activate() == world.Outcome.FAILURE
    assert "no tracker" in node.last_error


def test_a_model_that_fails_takes_the_node_out_of_the_active_state(world):
    node = world.active(perceiver="failing")
    world.camera()
    world.listen("ape/detections", SPECS["detections"])
    reports = world.listen("/diagnostics", DIAGNOSTICS)
    world.until(lambda: node.state_name == "inactive")
    reports.clear()
    world.until(lambda: reports)
    status = reports[-1].status[0]
    assert status.level in (2, b"\2")
    assert "the network fell over" in status.message
    assert node.trigger_activate() == world.Outcome.SUCCESS, "it can be tried again"


# -- parameters and services -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompts", ["", "cat"]), ("prompts", ["cat", "cat"]), ("prompts", "cat"),
        ("prompt_thresholds", ["person:1.5"]), ("prompt_thresholds", ["cat"]),
        ("score_threshold", 1.7), ("max_rate", -1.0), ("device", "cuda"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_with_a_reason(world, name, value):
    node = world.active()
    before = node.get_parameter(name).value
    outcome = node.set_parameters([world.Parameter(name, value=value)])[0]
    assert not outcome.successful
    assert outcome.reason
    assert node.get_parameter(name).value == before
    assert node.pipeline.prompts.texts == ("person",)


def test_prompts_and_thresholds_change_together_or_not_at_all(world):
    node = world.active()
    made = [
        world.Parameter("prompts", value=["cat", "dog"]),
        world.Parameter("prompt_thresholds", value=["dog:0.7"]),
        world.Parameter("score_threshold", value=0.4),
    ]
    assert node.set_parameters_atomically(made).successful
    assert [(p.text, p.threshold) for p in node.pipeline.prompts] == [("cat", 0.4), ("dog", 0.7)]
    made[0] = world.Parameter("prompts", value=["bird", ""])
    assert not node.set_parameters_atomically(made).successful
    assert node.pipeline.prompts.texts == ("cat", "dog")
    assert list(node.get_parameter("prompts").value) == ["cat", "dog"]


@pytest.mark.parametrize("latched", [True, False])
def test_prompts_come_over_a_topic_from_latched_and_volatile_writers(world, latched):
    node = world.active()
    spec = INPUTS[-1]
    kind = world.message(spec.type)
    sender = world.helper.create_publisher(
        kind, "ape/prompts", world.ros_rclpy.rclpy_qos(spec, latched=latched)
    )
    world.until(lambda: sender.get_subscription_count() == (2 if latched else 1))
    sender.publish(kind(data=" cat , red apple "))
    world.until(lambda: node.pipeline.prompts.texts == ("cat", "red apple"))
    sender.publish(kind(data=" , "))
    world.pass_time(0.3)
    assert node.pipeline.prompts.texts == ("cat", "red apple")


def test_it_can_be_paused(world):
    node = world.active()
    camera = world.camera()
    seen = world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: seen)
    request, response = ask(False)
    assert node._on_enable(request, response).message == "disabled"
    world.until(lambda: camera.get_subscription_count() == 0)
    node._on_enable(ask(True)[0], response)
    world.until(lambda: camera.get_subscription_count() == 1)


def ask(value):
    from std_srvs.srv import SetBool  # noqa: PLC0415 (the fake's, or the real one)

    return SetBool.Request(data=value), SetBool.Response()


def test_qos_of_outputs_can_be_overridden(world):
    key = "qos_overrides./ape/detections.publisher.reliability"
    world.active(**{key: "best_effort"})
    world.camera()
    reliable = world.listen("ape/detections", SPECS["detections"])
    best_effort = world.listen("ape/detections", SPECS["detections"], reliable=False)
    world.until(lambda: best_effort)
    assert not reliable
