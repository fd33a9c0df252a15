"""`~/detect`: one answer to one question, from any state that has a model."""

import time

import numpy as np
import pytest
import ros_perceivers
from ros_bench import BACKENDS, STAMP, World, an_image, an_unreadable_image

from ape_nodes.ros2.encoder import byte_array
from ape_nodes.ros2.topics import OUTPUTS
from ape_nodes.ros2.types import INTERFACES
from ape_stream.pipeline.shared_perceiver import SharedPerceiver

SPECS = {spec.name: spec for spec in OUTPUTS}
DETECT = f"{INTERFACES}/srv/DetectObjects"


@pytest.fixture(params=BACKENDS)
def world(request, monkeypatch):
    if request.param == "real":
        pytest.importorskip(INTERFACES, reason=f"needs {INTERFACES}")
    made = World(request.param, monkeypatch)
    made.start(threads=4)
    yield made
    made.end()


def configured(world, **options):
    node = world.node(**options)
    assert node.trigger_configure() == world.Outcome.SUCCESS
    return node


def asked(world, **fields):
    """A call of which the answer is not waited for."""
    return world.call(DETECT, "/ape/detect", **fields)


def answer(world, **fields):
    future = asked(world, **fields)
    world.until(future.done, 30)
    return future.result()


def seconds(world, value):
    kind = world.message("builtin_interfaces/msg/Duration")
    return kind(sec=int(value), nanosec=round(value % 1 * 1e9))


def masks(response):
    image = response.instance_image
    return np.frombuffer(image.data, np.uint16).reshape(image.height, image.width)


def depth_of(world, metres=1.5):
    """A depth image and its calibration, as fields of a request."""
    pixels = np.full((24, 32), metres, "<f4")
    depth = world.message("sensor_msgs/msg/Image")(
        height=24, width=32, encoding="32FC1", step=128, data=byte_array(pixels.tobytes())
    )
    info = world.message("sensor_msgs/msg/CameraInfo")(height=24, width=32)
    info.k = np.array([25.0, 0, 16, 0, 25, 12, 0, 0, 1])
    info.p = np.array([25.0, 0, 16, 0, 0, 25, 12, 0, 0, 0, 1, 0])
    depth.header.frame_id = info.header.frame_id = "lens"
    return {"depth": depth, "camera_info": info}


def test_an_image_is_answered_with_detections_and_masks_of_its_stamp(world):
    node = configured(world)
    got = answer(world, prompts=["cat", "red apple:0.3"], image=an_image(world, 77))
    assert (got.success, got.message) == (True, "")
    assert [one.results[0].hypothesis.class_id for one in got.detections.detections] == [
        "cat",
        "red apple",
    ]
    assert [one.id for one in got.detections.detections] == ["1", "2"]
    assert set(np.unique(masks(got))) == {0, 1, 2}
    for part in (got.image, got.detections, got.instance_image):
        assert (part.header.stamp.sec, part.header.stamp.nanosec) == (STAMP[0], 77)
        assert part.header.frame_id == "lens"
    assert not got.points.data, "no depth was given"
    assert list(node.get_parameter("prompts").value) == ["person"]


def test_the_newest_image_is_taken_and_what_runs_goes_on_unchanged(world):
    """Past `max_rate`, which keeps the running pipeline from all images but the first."""
    node = world.active(max_rate=0.01)
    seen = world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: node.is_subscribed)
    world.camera()
    world.until(lambda: seen)
    got = answer(world, prompts=["cat", "dog"])
    assert got.success, got.message
    assert got.image.header.stamp.nanosec > seen[0].header.stamp.nanosec
    assert len(got.detections.detections) == 2
    value = world.Parameter("max_rate", value=0.0)
    assert node.set_parameters([value])[0].successful
    node.images._rate_limit._due_s = 0.0
    before = len(seen)
    world.until(lambda: len(seen) > before + 2)
    assert {one.results[0].hypothesis.class_id for m in seen for one in m.detections} == {"person"}
    assert node.pipeline.prompts.texts == ("person",)


def test_without_prompts_those_of_the_node_are_found_and_no_subscription_stays(world):
    camera = world.camera()
    configured(world, prompts=["dog"], prompt_thresholds=["dog:0.6"])
    got = answer(world)
    assert got.success, got.message
    (one,) = got.detections.detections
    assert one.results[0].hypothesis.class_id == "dog"
    world.until(lambda: camera.get_subscription_count() == 0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompts": ["cat", "cat"]}, "cat"),
        ({"score_threshold": 2.0}, "is 2.0, not within 0..1"),
        ({}, "no image on /image for 0 s: it has no publisher that is seen here"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(world, fields, reason):
    configured(world)
    got = answer(world, timeout=seconds(world, 0.2), **fields)
    assert not got.success
    assert reason in got.message


def test_an_image_that_cannot_be_read_is_refused(world):
    configured(world)
    got = answer(world, image=an_unreadable_image(world))
    assert not got.success
    assert "'poem'" in got.message


def test_a_node_without_a_model_refuses(world):
    world.node()
    got = answer(world, image=an_image(world))
    assert not got.success
    assert got.message == "there is no model: the node is unconfigured; configure it first"


def test_a_model_that_fails_ends_the_call_only(world):
    node = configured(world, perceiver="failing")
    got = answer(world, image=an_image(world))
    assert (got.success, got.message) == (False, "the network fell over")
    assert node.trigger_activate() == world.Outcome.SUCCESS


def test_cleanup_ends_a_call_that_waits(world):
    node = configured(world)
    call = asked(world, timeout=seconds(world, 60))
    world.until(lambda: node.detect._newest is not None)
    assert node.trigger_cleanup() == world.Outcome.SUCCESS
    world.until(call.done, 5)
    assert "stopped while the call waited" in call.result().message


def test_depth_in_the_request_gives_boxes_and_points_with_the_numbers_of_the_masks(world):
    configured(world, depth="none")
    got = answer(world, prompts=["cat"], image=an_image(world), **depth_of(world))
    assert (got.success, got.message) == (True, "")
    (flat,), (solid,) = got.detections.detections, got.detections_3d.detections
    assert solid.id == flat.id == "1"
    assert solid.bbox.center.position.z == pytest.approx(1.5, abs=0.01)
    assert got.points.width == np.count_nonzero(masks(got) == 1)


def test_what_is_missing_for_results_in_space_is_said(world):
    configured(world, target_frame="base")
    given = depth_of(world) | {"image": an_image(world)}
    got = answer(world, **given)
    assert got.success
    assert "results stay in 'lens': tf does not connect" in got.message
    assert got.detections_3d.header.frame_id == "lens"
    given["camera_info"] = world.message("sensor_msgs/msg/CameraInfo")()
    got = answer(world, **given)
    assert got.success
    assert got.message.startswith("no depth: the camera info cannot be used")
    assert not got.detections_3d.detections


def test_depth_of_the_camera_is_waited_for_with_the_newest_image(world):
    """Images without their depth are passed over; where none has it, the last one is taken."""
    configured(world, depth="image")
    world.camera(image=lambda w: an_image(w, time.monotonic_ns() % 10**9))
    for timeout_s in (0.5, 4, 16):  # on a busy machine it takes seconds until the two have met
        got = answer(world, timeout=seconds(world, timeout_s))
        if got.success:
            break
    assert got.success
    assert got.message.startswith("no depth: ")
    part = depth_of(world)
    depths = world.helper.create_publisher(world.message("sensor_msgs/msg/Image"), "depth", 5)
    infos = world.helper.create_publisher(
        world.message("sensor_msgs/msg/CameraInfo"), "camera_info", 5
    )

    def send():
        stamp = an_image(world, time.monotonic_ns() % 10**9).header.stamp
        part["depth"].header.stamp = part["camera_info"].header.stamp = stamp
        infos.publish(part["camera_info"])
        depths.publish(part["depth"])

    world.helper.create_timer(0.01, send)
    got = answer(world)
    assert (got.success, got.message) == (True, "")
    assert got.detections_3d.detections[0].bbox.center.position.z == pytest.approx(1.5, abs=0.01)


def test_a_call_waits_for_the_model_while_a_frame_is_processed(world):
    node = world.active(SharedPerceiver(), perceiver="held")
    world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: node.is_subscribed)
    world.camera()
    world.until(ros_perceivers.HOLDING.is_set)
    call = asked(world, image=an_image(world))
    world.pass_time(0.3)
    assert not call.done()
    ros_perceivers.GATE.set()
    world.until(call.done)
    assert call.result().success
