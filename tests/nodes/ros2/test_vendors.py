"""Cyclone DDS on one side (the dds backend, without ROS), a real rclpy on Fast DDS on the other."""

import hashlib
import signal
import time

import numpy as np
import pytest
from processes import Peer

pytest.importorskip("cyclonedds")

from ape_nodes.ros2.source import Ros2Source
from ape_nodes.ros2.space.results import SPACE_TOPICS
from ape_nodes.ros2.topics import DIAGNOSTICS, OUTPUTS, TopicSpec
from ape_nodes.ros2.types import added_definitions, type_store

pytestmark = pytest.mark.ros
SPECS = {spec.name: spec for spec in OUTPUTS}
# Without those of frames with depth, and those whose message has no header.
OF_EVERY_FRAME = SPECS.keys() - {*SPACE_TOPICS, "annotations"}
IMAGE = TopicSpec("", "sensor_msgs/msg/Image", True, False, 2, False, "")
NOISE = np.random.default_rng(1)
HASH = hashlib.md5(NOISE.integers(0, 256, (1080, 1920, 3), np.uint8).tobytes()).hexdigest()


def topics(world, name, namespace):
    found = world.helper.get_publisher_names_and_types_by_node(name, namespace)
    return {topic: kinds for topic, kinds in found if topic.startswith("/robot")}


def test_results_of_the_dds_backend_reach_rclpy_which_lists_the_node(world):
    world.camera("/camera/image_raw")
    seen = {name: world.listen(f"/robot/ape/{name}", SPECS[name]) for name in OF_EVERY_FRAME}
    reports = world.listen("/diagnostics", DIAGNOSTICS)
    for words in (["cat", "dog"], ["bird"]):  # killed with SIGKILL, then replaced
        with Peer("dds_peer.py", "ape", ", ".join(words)):
            world.until(lambda words=words: all(seen.values()) and len(names(seen)) == len(words))
            world.until(lambda: reports)
            assert names(seen) == words
            first = seen["detections"][-1]
            assert (first.header.frame_id, first.header.stamp.sec) == ("lens", 1_700_000_000)
            assert [d.results[0].hypothesis.class_id for d in first.detections] == words
            label_image = np.frombuffer(seen["label_image"][-1].data, "<u2")
            assert set(label_image) == set(range(len(words) + 1))
            world.until(lambda: topics(world, "ape", "/robot"))
            assert topics(world, "ape", "/robot") == {
                f"/robot/ape/{name}": [spec.type] for name, spec in SPECS.items()
            }
            assert reports[-1].status[0].name == "/robot/ape"
        for messages in (*seen.values(), reports):
            messages.clear()


def names(seen):
    return [entry.class_name for entry in seen["label_info"][-1].class_map]


def test_types_have_the_same_hash_on_both_sides(world):
    for spec in (*OUTPUTS, DIAGNOSTICS):
        world.listen(f"/robot/ape/{spec.name.strip('/')}", spec)
    with Peer("dds_peer.py", "ape", "cat"):
        for name in SPECS:
            path = f"/robot/ape/{name}"
            world.until(lambda path=path: "ape" in writers(world, path))
            (theirs,) = world.helper.get_publishers_info_by_topic(path)
            (ours,) = world.helper.get_subscriptions_info_by_topic(path)
            assert theirs.topic_type == ours.topic_type
            assert str(theirs.topic_type_hash) == str(ours.topic_type_hash)
            assert theirs.qos_profile.reliability == ours.qos_profile.reliability


def writers(world, path):
    """Names of the nodes that write a topic; the name may come later than the writer."""
    return [one.node_name for one in world.helper.get_publishers_info_by_topic(path)]


def test_vision_msgs_have_the_fields_that_are_declared(world):
    store = type_store()
    for name in added_definitions():
        described = world.message(name).get_fields_and_field_types()
        assert list(described) == [field for field, _ in store.fielddefs[name][1]]


@pytest.mark.usefixtures("world")
def test_a_large_image_of_rclpy_arrives_byte_for_byte_over_dds():
    with (
        Ros2Source("ros2:///camera/image_raw", reliable=True, backend="dds") as source,
        Peer("rclpy_peer.py", "camera", "/camera/image_raw", 1080, 1920),
    ):
        frame = next(iter(source))
    assert hashlib.md5(frame.image.tobytes()).hexdigest() == HASH


def test_a_large_image_of_dds_arrives_byte_for_byte_in_rclpy(world):
    seen = world.listen("/camera/image_raw", IMAGE)
    with Peer("dds_peer.py", "camera", 1080, 1920):
        world.until(lambda: seen)
    assert hashlib.md5(seen[0].data).hexdigest() == HASH


@pytest.mark.usefixtures("world")
def test_the_rclpy_node_reads_a_dds_camera_and_a_dds_reader_gets_its_results():
    arguments = ("--autostart", "--ros-args", "-p", "perceiver:=oracle", "-p", "prompts:=['cat']")
    remapped = ("-r", "__ns:=/robot", "-r", "image:=/camera/image_raw")
    for _ in range(2):  # the dds side is killed, and starts again late
        with (
            Peer("ape_process.py", *arguments, *remapped),
            Peer("dds_peer.py", "camera"),
            Peer("dds_peer.py", "watch", "cat") as watcher,
        ):
            seen = watcher.lines(1)[0]
            assert (seen["classes"], seen["ids"], seen["labels"]) == (["cat"], ["cat"], [0, 1])
            assert seen["frame_id"] == "lens"
            assert seen["stamp"] >= 1_700_000_000_000_000_001


@pytest.mark.usefixtures("world")
def test_a_fast_dds_reader_survives_images_that_arrive_while_it_is_stopped():
    """It loops for ever when an image that it has in part is overwritten by its writer."""
    with (
        Peer("dds_peer.py", "camera", 1080, 1920),
        Peer("rclpy_peer.py", "watch", "/camera/image_raw") as watcher,
    ):
        assert watcher.lines(1)[0]["md5"] == HASH
        for _ in range(4):
            watcher.process.send_signal(signal.SIGSTOP)
            time.sleep(0.5)
            watcher.process.send_signal(signal.SIGCONT)
            time.sleep(0.3)
        assert {line["md5"] for line in watcher.lines(20)} == {HASH}
