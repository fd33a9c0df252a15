"""Depth messages to depth, pairs by time, and results in space, after serialisation by rosbags."""

import struct
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from depth_messages import (
    FRAME,
    STORE,
    a_cloud,
    a_compressed_depth_image,
    a_depth_image,
    an_info,
    tf_message,
)

from ape_nodes.ros2.images import to_png
from ape_nodes.ros2.messages import RosFrame
from ape_nodes.ros2.publisher import ResultPublisher
from ape_nodes.ros2.space.compressed_depth import decompressed
from ape_nodes.ros2.space.depth import DepthPairs, DepthReader, camera_of, depth_values, points_of
from ape_nodes.ros2.space.results import SPACE_TOPICS, Placement
from ape_nodes.ros2.space.tf import Patience, TransformError, TransformTree
from ape_nodes.ros2.topics import OUTPUTS
from ape_nodes.ros2.types import plain_encoder
from ape_stream.depth import Depth
from ape_stream.errors import SourceError
from ape_stream.masks import boxes, crop
from ape_stream.types import FrameResult, Instances, PromptSet

TYPES = {spec.name: spec.type for spec in OUTPUTS}
MS = 10**6
HUGE_PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", 100_000, 100_000)


# -- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("big", [0, 1])
@pytest.mark.parametrize("padding", [0, 6])
def test_the_encoding_says_millimetres_or_metres(big, padding):
    millimetres = np.arange(1000, 1012, dtype=np.uint16).reshape(3, 4)
    got = depth_values(a_depth_image(millimetres, padding=padding, big=big))
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, millimetres)
    metres = (millimetres / 1000).astype(np.float32)
    metres[0, 0] = np.nan
    np.testing.assert_array_equal(depth_values(a_depth_image(metres, padding=padding * 2, big=big)),
                                  metres)  # fmt: skip
    with pytest.raises(SourceError, match="none of 16UC1, 32FC1"):
        depth_values(SimpleNamespace(encoding="rgb8"))


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_compressed_depth_gives_back_what_was_measured(encoding):
    metres = np.linspace(0.4, 9.0, 48 * 64, dtype=np.float32).reshape(48, 64)
    metres[3, 5] = 0
    values = decompressed(a_compressed_depth_image(metres, encoding))
    assert values.dtype == {"16UC1": np.uint16, "32FC1": np.float32}[encoding]
    scale = 1000 if encoding == "16UC1" else 1
    np.testing.assert_allclose(values / scale, metres, atol=0.001, rtol=0.005)
    assert values[3, 5] == 0


@pytest.mark.parametrize(
    ("form", "data", "words"),
    [
        ("bgr8; jpeg compressed bgr8", b"", "is no depth in 16UC1 or 32FC1"),
        ("16UC1; compressedDepth rvl", bytes(40), "set its format to png, not rvl"),
        ("16UC1; compressedDepth", b"", "holds no PNG"),
        ("16UC1; compressedDepth", bytes(12) + HUGE_PNG, "100000x100000 pixels cannot be used"),
        ("16UC1; compressedDepth", bytes(12) + to_png(np.zeros((4, 4), np.uint16))[:50], "damaged"),
        ("16UC1; compressedDepth", bytes(12) + to_png(np.zeros((4, 4), np.uint8)), "no 16 bits"),
    ],
)
def test_compressed_depth_that_cannot_be_used_is_refused(form, data, words):
    message = SimpleNamespace(format=form, data=np.frombuffer(data, np.uint8))
    with pytest.raises(SourceError, match=words):
        decompressed(message)


@pytest.mark.parametrize("extra", [0, 4])
def test_points_are_read_by_their_fields(extra):
    points = np.random.default_rng(0).random((2, 3, 3)).astype(np.float32)
    np.testing.assert_array_equal(points_of(a_cloud(points, extra=extra)), points)
    assert points_of(a_cloud(points[:, :0], extra=extra)).shape == (2, 0, 3)
    short = a_cloud(points)
    with pytest.raises(SourceError, match="3x2 has steps"):
        points_of(replace(short, data=short.data[:-1]))
    with pytest.raises(SourceError, match="without x, y and z"):
        points_of(replace(short, fields=short.fields[:2]))


def test_a_camera_info_becomes_a_camera():
    info = an_info((480, 640), binning=2, roi=(100, 40, 320, 240), d=[0.1, 0, 0, 0, 0])
    camera = camera_of(info)
    assert (camera.size, camera.fx, camera.cx) == ((120, 160), 250.0, 110.0)
    assert camera.distortion[0] == 0.1
    assert camera_of(info, rectified=True).distortion == ()
    with pytest.raises(SourceError, match="is it calibrated"):
        camera_of(replace(info, k=np.zeros(9)))


# -- pairs by time -------------------------------------------------------------------------------


def pairs(slop_ms, *events):
    """Pairs made of ("i" or "d", milliseconds), with the depth's time or None."""
    found, made = DepthPairs(slop_ms * MS), []
    for kind, ms in events:
        add = found.add_image if kind == "i" else found.add_depth
        made += add(ms * MS, ms)
    return found, [*made, *found.end()]


def test_images_get_the_depth_closest_in_time():
    found, made = pairs(10, ("d", 95), ("i", 100), ("d", 102), ("i", 200), ("d", 205), ("i", 300))
    assert made == [(100, 102), (200, 205), (300, None)]
    assert (found.paired, found.unpaired, found.apart_ns) == (2, 1, None)


def test_a_depth_is_used_once_and_outside_the_slop_never():
    _, made = pairs(10, ("i", 100), ("i", 104), ("d", 102), ("d", 140))
    assert made == [(100, 102), (104, None)]
    found, made = pairs(10, ("i", 100), ("d", 120))
    assert made == [(100, None)]
    assert found.apart_ns == 20 * MS


def test_images_do_not_wait_for_ever(monkeypatch):
    _, made = pairs(10, *(("i", 100 * k) for k in range(7)))
    assert made == [(100 * k, None) for k in range(7)]
    found = DepthPairs(10 * MS)
    early = [one for k in range(7) for one in found.add_image(100 * k * MS, k)]
    assert len(early) == 3, "four may wait"
    assert not list(found.overdue())
    monkeypatch.setattr("ape_nodes.ros2.space.depth._LONGEST_S", 0.0)
    assert list(found.overdue()) == [(k, None) for k in range(3, 7)]


def test_in_any_order_of_arrival_all_are_paired():
    rng = np.random.default_rng(0)
    for _ in range(20):
        events = []
        for k in range(10):
            both = [("i", 100 * k), ("d", 100 * k + int(rng.integers(-8, 9)))]
            events += both if rng.random() < 0.5 else both[::-1]
        found, made = pairs(10, *events)
        assert [image for image, _ in made] == [100 * k for k in range(10)]
        assert all(abs(image - depth) <= 8 for image, depth in made)
        assert found.paired == 10


def test_a_bag_that_begins_again_is_paired_again():
    _, made = pairs(10, ("i", 500), ("d", 500), ("i", 600), ("i", 100), ("d", 101), ("i", 200),
                    ("d", 200))  # fmt: skip
    assert made == [(500, 500), (600, None), (100, 101), (200, 200)]


# -- frames with depth ---------------------------------------------------------------------------


def a_frame(stamp_ns=0):
    return RosFrame(np.zeros((48, 64, 3), np.uint8), 0, 0.0, stamp_ns=stamp_ns, frame_id=FRAME)


def reader(tree=None, **options):
    made = DepthReader(tree or TransformTree(), **options)
    made.take_info(an_info((48, 64)))
    return made


def values(frame):
    return frame.depth.metres()


def test_a_depth_image_of_the_camera_is_taken_as_it_is():
    depth = np.full((48, 64), 1500, np.uint16)
    made = reader()
    assert (values(made.with_depth(a_frame(), a_depth_image(depth))) == 1.5).all()
    assert made.problem == ""
    assert made.with_depth(a_frame(), None).depth is None
    assert made.problem == "no depth within the slop"


def test_without_a_camera_info_there_is_no_depth():
    made = DepthReader(TransformTree())
    assert made.with_depth(a_frame(), a_depth_image(np.ones((48, 64), np.float32))).depth is None
    assert made.problem == "no camera info has come"


def test_an_organised_cloud_of_the_camera_is_a_depth_image():
    points = np.zeros((24, 32, 3), np.float32)
    points[..., 2] = 2.5
    assert (values(reader().with_depth(a_frame(), a_cloud(points))) == 2.5).all()


def test_depth_of_another_frame_needs_tf():
    message = a_depth_image(np.full((48, 64), 2.0, np.float32), frame_id="depth_optical")
    made = reader()
    made.take_info(an_info((48, 64)), "depth")
    assert made.with_depth(a_frame(), message).depth is None
    assert "tf does not connect 'depth_optical'" in made.problem
    tree = TransformTree()
    tree.add(tf_message(FRAME, "depth_optical", 0, (0, 0, 0.5)), static=True)
    made = reader(tree)
    assert made.with_depth(a_frame(), message).depth is None
    assert "publish the depth camera's info" in made.problem
    made.take_info(an_info((48, 64)), "depth")
    got = values(made.with_depth(a_frame(), message))
    assert np.median(got[got > 0]) == pytest.approx(2.5)


def test_points_of_a_lidar_are_seen_by_the_camera():
    grid = np.stack(np.meshgrid(np.linspace(-2, 2, 90), np.linspace(-2, 2, 90)), -1)
    wall = np.concatenate([np.full((90, 90, 1), 3.0), -grid], -1).reshape(1, -1, 3)
    tree = TransformTree()
    # The lidar looks along x with z up, the camera along z with y down.
    tree.add(tf_message(FRAME, "lidar", 0, (0, 0, 0), (0.5, -0.5, 0.5, 0.5)), static=True)
    message = a_cloud(wall.astype(np.float32), frame_id="lidar")
    got = values(reader(tree).with_depth(a_frame(), message))
    assert np.count_nonzero(got) > 0.9 * got.size
    assert got[got > 0] == pytest.approx(3.0)


# -- tf ------------------------------------------------------------------------------------------


def test_a_transform_is_that_of_the_stamp():
    tree = TransformTree()
    for k in range(3):
        tree.add(tf_message("map", "base", 100 * k * MS, (k, 0, 0)), static=False)
    tree.add(tf_message("base", FRAME, 0, (0, 0, 1)), static=True)
    middle = tree.look_up("map", FRAME, 150 * MS)
    np.testing.assert_allclose(middle.translation, (1.5, 0, 1))
    np.testing.assert_allclose(tree.look_up(FRAME, "/map", 100 * MS).translation, (-1, 0, -1))
    with pytest.raises(TransformError, match="100 ms after the last"):
        tree.look_up("map", FRAME, 300 * MS)
    with pytest.raises(TransformError, match="before the first"):
        tree.look_up("map", FRAME, -1)
    with pytest.raises(TransformError, match="does not connect 'lens'"):
        tree.look_up("x", FRAME, 0)


def test_a_rotation_is_interpolated_the_short_way():
    tree = TransformTree()
    half = np.sqrt(0.5)
    tree.add(tf_message("map", "base", 0, (0, 0, 0), (0, 0, 0, 1)), static=False)
    tree.add(tf_message("map", "base", 100 * MS, (0, 0, 0), (0, 0, -half, -half)), static=False)
    turned = tree.look_up("map", "base", 50 * MS)(np.array([[1, 0, 0]], np.float32))
    np.testing.assert_allclose(turned, [[half, half, 0]], atol=1e-6)


# -- results in space ----------------------------------------------------------------------------


def a_result(depth=1.5, stamp_ns=0):
    shape = np.zeros((48, 64), bool)
    shape[10:30, 20:50] = True
    found = (crop(shape),)
    frame = a_frame(stamp_ns)
    camera = camera_of(an_info((48, 64)))
    frame = replace(frame, depth=Depth(np.full((48, 64), depth, np.float32), camera),
                    image=np.full((48, 64, 3), (10, 20, 30), np.uint8))  # fmt: skip
    return FrameResult(
        frame,
        Instances(boxes(found), np.array([0.8], np.float32), np.array([1]), found, (48, 64),
                  np.array([7])),
        PromptSet.of(["cat", "dog"]),
    )  # fmt: skip


def sent(result, placement=None):
    made = {}
    publisher = ResultPublisher(plain_encoder(STORE), None, placement)
    for name, message in publisher.messages(result, lambda _: True):
        raw = STORE.serialize_cdr(message, TYPES[name])
        made[name] = STORE.deserialize_cdr(raw, TYPES[name])
    return made


def test_a_detection_in_space_is_that_in_the_image():
    found = sent(a_result())["detections_3d"]
    (one,) = found.detections
    assert found.header.frame_id == one.header.frame_id == FRAME
    assert one.id == "7"
    assert one.results[0].hypothesis.class_id == "dog"
    assert one.results[0].hypothesis.score == pytest.approx(0.8)
    assert one.results[0].pose.pose.position == one.bbox.center.position
    assert one.bbox.center.position.z == pytest.approx(1.5, abs=0.01)
    sides = sorted((one.bbox.size.x, one.bbox.size.y, one.bbox.size.z))
    assert sides[1:] == pytest.approx([20 * 1.5 / 50, 30 * 1.5 / 50], rel=0.05)


def test_points_carry_colour_label_instance_and_score():
    made = sent(a_result())["points"]
    assert [field.name for field in made.fields] == [
        "x", "y", "z", "rgb", "label", "instance", "score"]  # fmt: skip
    assert (made.height, made.width, made.point_step) == (1, 600, 24)
    packed = made.data.reshape(-1, 24)
    assert (packed[:, 12:16] == (10, 20, 30, 0)).all(), "0x00RRGGBB, little endian"
    assert (packed[:, 16:20].view("<u2") == (2, 1)).all()
    np.testing.assert_allclose(packed[:, 20:].copy().view("<f4"), 0.8)
    np.testing.assert_allclose(points_of(made)[0, :, 2], 1.5)
    thin = sent(a_result(), Placement(voxel_m=0.1))["points"]
    assert 10 < thin.width < 100


def test_aligned_points_have_the_rows_and_columns_of_the_label_image():
    made = sent(a_result())
    points = points_of(made["aligned_points"])
    labels = made["label_image"]
    assert points.shape[:2] == (labels.height, labels.width)
    camera = camera_of(an_info((48, 64)))
    pixels = camera.project(points.reshape(-1, 3)).reshape(48, 64, 2)
    np.testing.assert_allclose(pixels[20, 30], (30, 20), atol=1e-3)
    confidence = made["confidence_image"].data.reshape(48, 64)
    assert (made["confidence_image"].encoding, set(np.unique(confidence))) == ("mono8", {0, 204})
    np.testing.assert_array_equal(confidence > 0, labels.data.view("<u2").reshape(48, 64) > 0)


def test_markers_replace_those_of_the_result_before():
    markers = sent(a_result())["markers"].markers
    assert [(one.action, one.type) for one in markers] == [(3, 1), (0, 1), (0, 9)]
    assert markers[1].pose.position.z == pytest.approx(1.5, abs=0.01)
    assert markers[2].text == "dog 7 1.50 m"
    assert 0 < markers[1].lifetime.sec < 10, "they vanish when the node does"
    assert min(markers[1].scale.x, markers[1].scale.y, markers[1].scale.z) > 0


def test_a_frame_without_depth_has_no_messages_in_space():
    result = a_result()
    plain = replace(result, frame=replace(result.frame, depth=None))
    assert set(sent(result)) - set(sent(plain)) == set(SPACE_TOPICS)


def test_results_are_sent_in_the_target_frame():
    tree = TransformTree()
    tree.add(tf_message("map", FRAME, 0, (0, 0, 10)), static=True)
    placement = Placement(boxes="axis_aligned", target_frame="map", transforms=tree)
    made = sent(a_result(), placement)
    for name in ("detections_3d", "points"):
        assert made[name].header.frame_id == "map"
    assert made["detections_3d"].detections[0].bbox.center.position.z == pytest.approx(11.5)
    assert points_of(made["points"])[0, 0, 2] == pytest.approx(11.5)
    assert made["aligned_points"].header.frame_id == FRAME
    assert placement.problem == ""


def test_without_the_transform_they_stay_in_the_image_s_frame_and_say_why():
    placement = Placement(target_frame="map")
    made = sent(a_result(), placement)
    assert made["detections_3d"].header.frame_id == FRAME
    assert "results stay in 'lens': tf does not connect" in placement.problem


def test_a_transform_that_comes_late_is_waited_for_also_after_a_failure(monkeypatch):
    """tf is always some milliseconds behind; what is missing for long delays few results."""
    waits = []
    tree = TransformTree()
    monkeypatch.setattr(tree, "_waited", lambda _, wait_s: waits.append(wait_s))
    patience = Patience()
    for _ in range(2):  # not connected at all
        with pytest.raises(TransformError):
            tree.look_up("map", FRAME, 5, patience)
    assert waits == []
    tree.add(tf_message("map", FRAME, 0, (0, 0, 0)), static=False)
    for _ in range(3):
        with pytest.raises(TransformError, match="after the last"):
            tree.look_up("map", FRAME, 5, patience)
    assert waits == [0.2, 0.0, 0.0], "the next wait is a second later"
    monkeypatch.undo()
    threading.Timer(
        0.05, lambda: tree.add(tf_message("map", FRAME, 5, (0, 0, 7)), static=False)
    ).start()
    assert tree.look_up("map", FRAME, 5, Patience()).translation[2] == 7


def test_who_waits_takes_what_has_arrived():
    """A sink or a source has no thread for transforms."""
    tree = TransformTree()
    tree.add(tf_message("map", FRAME, 0, (0, 0, 0)), static=False)
    tree.refill = lambda: tree.add(tf_message("map", FRAME, 9, (0, 0, 9)), static=False)
    with pytest.raises(TransformError):
        tree.look_up("map", FRAME, 5)
    assert tree.look_up("map", FRAME, 5, Patience()).translation[2] == 5


def test_annotations_are_boxes_contours_and_names():
    made = sent(a_result())["annotations"]
    box, contour = made.points
    assert [(p.x, p.y) for p in box.points] == [(20, 10), (50, 10), (50, 30), (20, 30)]
    assert {(p.x, p.y) for p in contour.points} == {
        (20.5, 10.5), (49.5, 10.5), (49.5, 29.5), (20.5, 29.5)}  # fmt: skip
    assert contour.type == 2
    assert made.texts[0].text == "#7 dog 0.80"
    assert contour.fill_color.a > 0
