"""Depth in the node: paired with images, results in space, warnings where something lacks."""

import numpy as np
import pytest
from ros_bench import BACKENDS, World, an_image

from ape_nodes.ros2.encoder import byte_array
from ape_nodes.ros2.images import to_png
from ape_nodes.ros2.topics import DIAGNOSTICS, OUTPUTS

SPECS = {spec.name: spec for spec in OUTPUTS}


@pytest.fixture(params=BACKENDS)
def world(request, monkeypatch):
    made = World(request.param, monkeypatch)
    made.start()
    yield made
    made.end()


def depth_camera(world, *, late_ns=0, encoding="16UC1", frame_id="lens"):
    """Publishes image, depth and calibration ten times a second; the depth is 1.5 m."""
    node = world.helper
    image = node.create_publisher(world.message("sensor_msgs/msg/Image"), "image", 5)
    kind, topic = "sensor_msgs/msg/Image", "depth"
    if encoding == "compressed":
        kind, topic = "sensor_msgs/msg/CompressedImage", "elsewhere/compressedDepth"
    depth = node.create_publisher(world.message(kind), topic, 5)
    info = node.create_publisher(world.message("sensor_msgs/msg/CameraInfo"), "camera_info", 5)
    count = [0]

    def send():
        count[0] = (count[0] + 100_000_000) % 800_000_000
        message = an_image(world, count[0])
        image.publish(message)
        calibration = world.message("sensor_msgs/msg/CameraInfo")(height=24, width=32)
        calibration.header = message.header
        calibration.k = np.array([25.0, 0, 16, 0, 25, 12, 0, 0, 1])
        calibration.p = np.array([25.0, 0, 16, 0, 0, 25, 12, 0, 0, 0, 1, 0])
        info.publish(calibration)
        values = {"16UC1": np.full((24, 32), 1500, "<u2"), "32FC1": np.full((24, 32), 1.5, "<f4")}
        pixels = values.get(encoding, values["16UC1"])
        measured = world.message("sensor_msgs/msg/Image")(
            height=24, width=32, encoding=encoding, step=pixels.strides[0],
            data=byte_array(pixels.tobytes()),
        )  # fmt: skip
        if encoding == "compressed":
            measured = world.message(kind)(
                format="16UC1; compressedDepth png", data=byte_array(bytes(12) + to_png(pixels))
            )
        measured.header.frame_id = frame_id
        measured.header.stamp.sec = message.header.stamp.sec
        measured.header.stamp.nanosec = count[0] + late_ns
        depth.publish(measured)

    node.create_timer(0.05, send)


def statuses(world):
    reports = world.listen("/diagnostics", DIAGNOSTICS)
    return lambda: [report.status[0] for report in reports]


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "compressed"])
def test_results_in_space_are_those_of_the_image(world, encoding):
    form = "compressed" if encoding == "compressed" else "image"
    rule = ["--ros-args", "-r", "depth:=elsewhere"] if form == "compressed" else None
    node = world.active(depth=form, prompts=["cat"], cli_args=rule)
    depth_camera(world, encoding=encoding, late_ns=3_000_000)
    flat = world.listen("ape/detections", SPECS["detections"])
    solid = world.listen("ape/detections_3d", SPECS["detections_3d"])
    points = world.listen("ape/points", SPECS["points"])
    told = statuses(world)
    world.until(lambda: len(solid) > 3 and points)
    (one,) = solid[-1].detections
    assert one.bbox.center.position.z == pytest.approx(1.5, abs=0.02)
    assert one.results[0].hypothesis.class_id == "cat"
    assert solid[-1].header.frame_id == "lens"
    assert {stamp_of(message) for message in solid} <= {stamp_of(message) for message in flat}
    assert points[-1].width == 16, "4 x 4 pixels"
    world.until(lambda: told() and "depth_apart_ms" in values_of(told()[-1]))
    assert values_of(told()[-1])["depth_apart_ms"] == "3.0"
    assert node.images.values()["depth_paired"] > 2


def stamp_of(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


def values_of(status):
    return {pair.key: pair.value for pair in status.values}


def test_depth_that_comes_too_late_is_a_warning_and_images_go_on(world):
    world.active(depth="image")
    depth_camera(world, late_ns=60_000_000)
    flat = world.listen("ape/detections", SPECS["detections"])
    told = statuses(world)
    world.until(lambda: len(flat) > 5)
    words = "no image has depth within 20 ms (depth_slop): the closest is"
    world.until(lambda: any(words in status.message for status in told()))


def test_images_go_on_where_depth_falls_silent(world):
    """Fewer than may wait for their depth, and no further message of any topic."""
    node = world.active(depth="image")
    camera = world.helper.create_publisher(world.message("sensor_msgs/msg/Image"), "image", 5)
    found = world.listen("ape/detections", SPECS["detections"])
    world.until(lambda: node.is_subscribed and camera.get_subscription_count())
    camera.publish(an_image(world))
    world.until(lambda: found)


def test_a_target_frame_that_tf_does_not_know_is_a_warning(world):
    world.active(depth="image", target_frame="map", boxes_3d="axis_aligned")
    depth_camera(world)
    solid = world.listen("ape/detections_3d", SPECS["detections_3d"])
    told = statuses(world)
    world.until(lambda: solid)
    assert solid[-1].header.frame_id == "lens"
    words = "results stay in 'lens': tf does not connect"
    world.until(lambda: any(words in status.message for status in told()))


def test_without_depth_there_are_no_topics_in_space(world):
    node = world.active()
    assert "detections_3d" not in node.output_names
    assert "confidence_image" in node.output_names
