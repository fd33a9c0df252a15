"""The node's health in its diagnostics, and several cameras: with a fake rclpy and the real one."""

import json
import threading
import time
from types import SimpleNamespace

import pytest
import ros_perceivers
from ros_bench import BACKENDS, PATIENCE_S, World, an_image, an_unreadable_image

from ape_nodes.ros2.health import DepthWatch, InputWatch
from ape_nodes.ros2.topics import DIAGNOSTICS, IN_FORCE, OUTPUTS
from ape_stream.pipeline.shared_perceiver import SharedPerceiver

SPECS = {spec.name: spec for spec in OUTPUTS}
WARN = (1, b"\1")


@pytest.fixture(params=BACKENDS)
def world(request, monkeypatch):
    made = World(request.param, monkeypatch)
    made.start()
    yield made
    made.end()


def status_of(world, words):
    """The first status whose message has these words."""
    reports = world.listen("/diagnostics", DIAGNOSTICS)

    def found():
        return [one.status[0] for one in reports if words in one.status[0].message]

    world.until(found)
    return found()[0]


# -- health, and several cameras ------------------------------------------------------------------


def test_diagnostics_hold_rates_ages_and_drops(world):
    world.active()
    world.camera()
    world.listen("ape/detections", SPECS["detections"])
    reports = world.listen("/diagnostics", DIAGNOSTICS)
    world.until(lambda: reports and reports[-1].status[0].message == "active" and len(reports) > 2)
    status = reports[-1].status[0]
    values = {pair.key: pair.value for pair in status.values}
    assert status.name == "/ape"
    assert status.level in (0, b"\0")
    assert values["prompts"] == "person"
    assert values["subscribed"] == "True"
    # The fake has no rcl.
    typed = not hasattr(world.ros_rclpy.rclpy, "__file__")
    assert values["taken_as"] == ("typed" if typed else "serialized")
    assert int(values["published"]) > 0
    assert float(values["age_ms_p95"]) >= float(values["age_ms_p50"]) >= 0
    assert {"perceive_ms_p50", "dropped", "publish_hz"} <= set(values)


def test_the_log_says_what_a_node_waits_for(monkeypatch):
    world = World("fake", monkeypatch)
    world.start()
    node = world.active(cli_args=["--ros-args", "-r", "image:=/camera/image_raw"])
    assert node.get_logger().lines == [
        ("info", "loading the model nano"),
        ("info", "active: /camera/image_raw is read once an output has a reader"),
    ]
    world.end()


def test_the_time_of_publishing_is_that_of_making_the_messages(world, monkeypatch):
    node = world.active()
    monkeypatch.setattr(node, "publish", lambda *_: time.sleep(0.02))
    world.camera()
    world.listen("ape/detections", SPECS["detections"])
    reports = world.listen("/diagnostics", DIAGNOSTICS)

    def times():
        pairs = reports[-1].status[0].values if reports else ()
        # Empty where no image was processed yet.
        measured = [pair for pair in pairs if pair.key.endswith("_ms_p50") and pair.value]
        return {pair.key: float(pair.value) for pair in measured}

    world.until(lambda: times().get("publish_ms_p50", 0.0) >= 20.0)
    assert times()["age_ms_p50"] > 20.0, "an age ends when everything is published"


def test_cameras_of_one_process_share_the_model(world):
    shared = SharedPerceiver()
    for side, word in (("left", "cat"), ("right", "dog")):
        rule = ["--ros-args", "-r", f"image:=/{side}/image_raw"]
        world.active(shared, namespace=side, cli_args=rule, prompts=[word])
        world.camera(f"/{side}/image_raw")
    idle = [world.node(shared, namespace=f"idle{k}") for k in range(2)]
    seen = {s: world.listen(f"/{s}/ape/detections", SPECS["detections"]) for s in ("left", "right")}
    world.until(lambda: all(len(found) > 3 for found in seen.values()))
    words = {s: {d.results[0].hypothesis.class_id for m in found for d in m.detections}
             for s, found in seen.items()}  # fmt: skip
    assert words == {"left": {"cat"}, "right": {"dog"}}
    assert all(node.trigger_shutdown() == world.Outcome.SUCCESS for node in idle)
    count = len(seen["left"])
    world.until(lambda: len(seen["left"]) > count + 3)
    assert shared.loaded is not None, "nodes that never configured free nothing"


def test_images_flow_while_prompts_are_embedded(world):
    """They are received by a thread of their own, which never waits for the model."""
    node = world.active(perceiver="held")
    world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: node.is_subscribed)
    change = world.Parameter("prompts", value=["cat"])
    answers = []
    asking = threading.Thread(target=lambda: answers.extend(node.set_parameters([change])))
    camera = world.camera()
    world.until(ros_perceivers.HOLDING.is_set)
    asking.start()
    arrived = node.images.watch.received
    deadline_s = time.monotonic() + PATIENCE_S
    while node.images.watch.received <= arrived + 5:  # no executor runs meanwhile
        assert time.monotonic() < deadline_s
        camera.publish(an_image(world))
        time.sleep(0.01)
    assert not answers
    ros_perceivers.GATE.set()
    asking.join(PATIENCE_S)
    assert answers[0].successful
    assert camera.get_subscription_count() == 1


# -- what is wrong with the images ---------------------------------------------------------------


def test_silence_and_its_cause_are_reported():
    watch = InputWatch()
    assert watch.health(100.0) is None, "nothing is subscribed to"
    watch.subscribed("/camera", 10.0)
    assert watch.health(12.0) is None
    assert "no image on /camera for 3 s: it has no publisher" in watch.health(13.0).message
    watch.incompatible = "reliability"
    assert "a publisher's reliability does not match" in watch.health(14.0).message
    watch.incompatible, watch.publishers = "", 2
    assert "2 publishers are there" in watch.health(14.0).message
    watch.publishers = 1
    assert "1 publisher is there" in watch.health(14.0).message
    watch.arrived(15.0)
    assert watch.health(15.5) is None
    watch.unsubscribed()
    assert watch.health(30.0) is None


def test_lost_images_are_reported_until_no_more_are_lost():
    watch = InputWatch()
    watch.subscribed("/camera", 0.0)
    for _ in range(5):
        watch.arrived(1.0)
    watch.lost = 95
    health = watch.health(1.0)
    assert health.level == "WARN"
    assert "95 of 100 images were lost" in health.message
    assert "docs/ros2.md" in health.message
    watch.arrived(2.0)
    assert watch.health(2.0) is None


def test_lost_depth_is_reported_as_well():
    watch = InputWatch()
    watch.subscribed("/camera", 0.0)
    watch.arrived(1.0)
    watch.depth_lost = 7
    assert watch.health(1.0).message.startswith("7 messages of depth were lost")
    assert watch.health(1.0) is None


def test_what_is_lost_adds_up_over_subscriptions(world):
    images = world.node(depth="image").images
    for change in (90, 5):  # of two subscriptions, each of which counts from 0
        event = SimpleNamespace(total_count_change=change)
        images._events().message_lost(event)
        images._depth_events().message_lost(event)
    assert (images.watch.lost, images.watch.depth_lost) == (95, 95)


def test_images_without_depth_are_reported_at_any_rate():
    watch = DepthWatch()
    pairs = SimpleNamespace(slop_ns=20_000_000, paired=0, unpaired=0, apart_ns=None)
    for pairs.unpaired in range(1, 5):  # one a second
        assert watch.health(pairs, "") is None
    pairs.unpaired = 5
    assert watch.health(pairs, "").message.endswith("within 20 ms (depth_slop): no depth comes")
    pairs.unpaired, pairs.apart_ns = 6, 40_000_000
    assert "the closest is 40 ms off" in watch.health(pairs, "").message
    pairs.paired, pairs.unpaired = 1, 7
    assert watch.health(pairs, "") is None
    assert "no tf" in watch.health(pairs, "no tf").message
    pairs.paired, pairs.unpaired = 0, 1  # the subscription began again
    assert watch.health(pairs, "") is None


def test_a_node_that_gets_no_image_warns(world):
    world.active()
    world.listen("ape/detections", SPECS["detections"])
    status = status_of(world, "it has no publisher that is seen here")
    assert status.level in WARN


def test_a_publisher_that_does_not_match_is_named(world):
    node = world.active(image_reliability="reliable")
    best_effort = world.qos.QoSProfile(depth=5, reliability=world.qos.ReliabilityPolicy.BEST_EFFORT)
    sender = world.helper.create_publisher(
        world.message("sensor_msgs/msg/Image"), "image", best_effort
    )
    world.helper.create_timer(0.1, lambda: sender.publish(an_image(world)))
    world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: node.images.watch.incompatible)
    assert "reliability" in status_of(world, "does not match: see image_reliability").message


def test_images_that_all_cannot_be_read_are_a_warning(world):
    world.active()
    world.camera(image=an_unreadable_image)
    world.listen("ape/detections", SPECS["detections"])
    status = status_of(world, "no image can be read: image encoding 'poem' is none of")
    assert status.level in WARN
    values = {pair.key: pair.value for pair in status.values}
    assert int(values["received"]) > 0
    assert values["lost"] == "0"
    assert values["publishers"] == "1"


def test_diagnostics_go_on_while_simulated_time_stands_still(world):
    world.node(use_sim_time=True)
    reports = world.listen("/diagnostics", DIAGNOSTICS)
    world.until(lambda: len(reports) >= 2)


def test_an_image_that_is_overtaken_is_not_decoded(world, monkeypatch):
    """One is with the model, one waits; all others are overtaken while they are still bytes."""
    decoded = []
    messages = world.ros_node.ImageInput.__module__
    frame_of = __import__(messages, fromlist=["frame_of"]).frame_of
    monkeypatch.setattr(
        f"{messages}.frame_of", lambda *given: (decoded.append(1), frame_of(*given))[1]
    )
    node = world.active(perceiver="held")
    world.camera(period_s=0.01)
    world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: node.images.watch.received > 20)
    assert len(decoded) == 1
    ros_perceivers.GATE.set()
    world.until(lambda: len(decoded) > 1)


def test_the_model_has_run_before_the_first_image(world):
    node = world.node()
    assert node.trigger_configure() == world.Outcome.SUCCESS
    ((blank,),) = node.perceiver.loaded.batches
    assert blank.stream == "warm-up"


# -- prompts: what is in force, and thresholds by their text -------------------------------------


def answers(world):
    seen = world.listen("ape/prompts_in_force", IN_FORCE)
    return lambda: [json.loads(message.data) for message in seen]


def test_what_was_asked_by_a_topic_is_answered(world):
    node = world.active(prompts=["cat"])
    node._on_prompts(SimpleNamespace(data="cat, dog:0.6"))
    node._on_prompts(SimpleNamespace(data="bird, bird"))
    told = answers(world)
    world.until(told)
    assert told()[-1]["prompts"] == ["cat", "dog"]
    assert told()[-1]["thresholds"] == [None, 0.6]
    assert "bird" in told()[-1]["refused"]
    assert node.pipeline.prompts.texts == ("cat", "dog")


def test_thresholds_belong_to_texts_in_any_order_of_loading(world):
    node = world.active(prompts=["cat", "dog"], prompt_thresholds=["dog:0.6"])

    def thresholds():
        return {prompt.text: prompt.threshold for prompt in node.pipeline.prompts}

    assert thresholds() == {"cat": None, "dog": 0.6}
    change = [world.Parameter("prompts", value=["bird"])]
    assert node.set_parameters(change)[0].successful
    assert thresholds() == {"bird": None}
    # One after the other, as `ros2 param load` does it.
    load = [
        world.Parameter("prompt_thresholds", value=["cow:0.7", "dog:0.6"]),
        world.Parameter("prompts", value=["dog", "cow", "note: red"]),
    ]
    assert all(outcome.successful for outcome in node.set_parameters(load))
    assert thresholds() == {"dog": 0.6, "cow": 0.7, "note: red": None}


def test_more_prompts_than_a_node_can_take_are_refused(world):
    node = world.active()
    change = world.Parameter("prompts", value=[f"word {k}" for k in range(10_001)])
    outcome = node.set_parameters([change])[0]
    assert not outcome.successful
    assert "10001 prompts are more than the 10000" in outcome.reason
