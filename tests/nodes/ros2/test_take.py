"""Messages taken as bytes through rcl are those that rclpy makes, field by field."""

import array
import ctypes
import gc

import numpy as np
import pytest
from ros_bench import an_image

from ape_nodes.ros2.topics import DIAGNOSTICS, INPUTS, OUTPUTS
from ape_stream.errors import SourceError

pytestmark = pytest.mark.ros
IMAGE, JPEG, CLOUD = (
    f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "PointCloud2")
)
SPECS = {spec.name: spec for spec in (*INPUTS, *OUTPUTS)}


@pytest.fixture
def take():
    pytest.importorskip("rclpy", reason="needs a ROS 2 installation")
    from ape_nodes.ros2.rclpy_node import take  # noqa: PLC0415 (imports rclpy)

    return take


def some_bytes(count):
    return array.array(
        "B", np.random.default_rng(count).integers(0, 256, count, np.uint8).tobytes()
    )


def header(world, frame_id="lens", sec=-5):
    made = world.message("std_msgs/msg/Header")(frame_id=frame_id)
    made.stamp.sec, made.stamp.nanosec = sec, 999_999_999
    return made


def image(world, encoding="bgr8", size=(4, 5), step=16, frame_id="lens", count=None):
    count = size[0] * step if count is None else count
    return world.message(IMAGE)(
        header=header(world, frame_id), height=size[0], width=size[1], encoding=encoding,
        is_bigendian=1, step=step, data=some_bytes(count),
    )  # fmt: skip


def jpeg(world, count=1001):
    return world.message(JPEG)(header=header(world), format="rgb8; jpeg", data=some_bytes(count))


def cloud(world, names=("x", "y", "längst")):
    kind = world.message("sensor_msgs/msg/PointField")
    fields = [kind(name=name, offset=4 * k, datatype=7, count=1) for k, name in enumerate(names)]
    return world.message(CLOUD)(
        header=header(world), height=2, width=3, fields=fields, is_bigendian=True, point_step=12,
        row_step=36, data=some_bytes(72), is_dense=True,
    )  # fmt: skip


MESSAGES = {
    "bgr8": (IMAGE, image),
    "16UC1": (IMAGE, lambda w: image(w, "16UC1")),
    "32FC1": (IMAGE, lambda w: image(w, "32FC1", step=20)),
    "padded": (IMAGE, lambda w: image(w, "rgb8", step=101)),
    "no frame": (IMAGE, lambda w: image(w, frame_id="")),
    "Greek frame": (IMAGE, lambda w: image(w, frame_id="Ω λ")),
    "no pixels": (IMAGE, lambda w: image(w, "", (0, 0), 0)),
    "too few pixels": (IMAGE, lambda w: image(w, count=3)),
    "4K": (IMAGE, lambda w: image(w, "bgr8", (2160, 3840), 11520)),
    "jpeg": (JPEG, jpeg),
    "nothing in a jpeg": (JPEG, lambda w: jpeg(w, 0)),
    "points": (CLOUD, cloud),
    "no fields": (CLOUD, lambda w: cloud(w, ())),
}


class Both:
    """A topic, and two subscriptions to it: one for each form."""

    def __init__(self, world, kind):
        self.world = world
        node, made = world.helper, world.message(kind)
        self.publisher = node.create_publisher(made, "topic", 10)
        self.subscriptions = [node.create_subscription(made, "topic", print, 10) for _ in range(2)]
        for one in self.subscriptions:  # taken here, not by the executor
            one.callback_group = type("Group", (), {"can_execute": lambda *_: False})()
        world.until(lambda: self.publisher.get_subscription_count() == 2)

    def next(self, take, which=0):
        found = []
        self.world.until(
            lambda: (
                found or (found.append(take(self.subscriptions[which])) or found[-1] is not None)
            )
        )
        return found[-1]


def same(message, reference):
    """Whether all fields of a message are those of rclpy's message."""
    for name in reference.get_fields_and_field_types():
        ours, theirs = getattr(message, name), getattr(reference, name)
        if name == "data":
            assert ours.nbytes == len(theirs)
            assert ours == memoryview(theirs), "the bytes"
        elif name == "fields":
            assert len(ours) == len(theirs)
            for one, other in zip(ours, theirs, strict=True):
                same(one, other)
        elif hasattr(theirs, "get_fields_and_field_types"):
            same(ours, theirs)
        else:
            assert (type(ours), ours) == (type(theirs), theirs), name


@pytest.mark.parametrize("name", MESSAGES)
def test_both_forms_take_the_same(world, take, name):
    kind, make = MESSAGES[name]
    topic = Both(world, kind)
    quick, reference = take.take_of(kind, pytest.fail), take.TypedTake()
    assert (quick.form, reference.form) == ("serialized", "typed")
    for _ in range(3):  # the second time into the buffer of the first
        topic.publisher.publish(make(world))
        expected = topic.next(reference, 1)
        same(topic.next(quick), expected)


def test_nothing_is_taken_where_nothing_is_there(world, take):
    topic = Both(world, IMAGE)
    quick = take.take_of(IMAGE, pytest.fail)
    assert [quick(topic.subscriptions[0]) for _ in range(10)] == [None] * 10
    assert len(quick._free) == 1, "one buffer, used again"


def test_an_image_keeps_its_bytes_while_anything_refers_to_them(world, take):
    topic = Both(world, IMAGE)
    quick, kept = take.take_of(IMAGE, pytest.fail), []
    for count in (64, 9000, 128, 200_000):  # buffers grow
        topic.publisher.publish(image(world, count=count))
        rows = np.frombuffer(topic.next(quick).data, np.uint8)[1:]
        assert not rows.flags.writeable
        kept.append((rows, bytes(some_bytes(count)[1:])))
    gc.collect()
    assert [bytes(rows) for rows, _ in kept] == [expected for _, expected in kept]
    assert not quick._free
    kept.clear()
    del rows
    gc.collect()
    assert len(quick._free) == 4, "all of them can be used again"
    place = quick._free[-1].array.buffer
    topic.publisher.publish(image(world))
    found = topic.next(quick)
    assert np.frombuffer(found.data, np.uint8).ctypes.data > place
    assert len(quick._free) == 3
    del found
    assert len(quick._free) == 3, "a buffer that is far too large goes back to the system"


def test_at_most_four_buffers_wait(world, take):
    topic = Both(world, IMAGE)
    quick, kept = take.take_of(IMAGE, pytest.fail), []
    for _ in range(7):
        topic.publisher.publish(image(world))
        kept.append(topic.next(quick))
    kept.clear()
    assert len(quick._free) == 4


def test_buffers_outlive_what_took_them(world, take):
    topic = Both(world, IMAGE)
    topic.publisher.publish(image(world))
    quick = take.take_of(IMAGE, pytest.fail)
    found = topic.next(quick)
    del quick
    gc.collect()
    assert found.data == memoryview(some_bytes(64))


class Failing:
    """rcl that gives an error."""

    def __init__(self, library, code):
        self._library, self._code = library, code

    def __getattr__(self, name):
        return getattr(self._library, name)

    def rcl_take_serialized_message(self, _subscription, message, *_):
        # rcl's own, without a subscription: it leaves an error in its thread.
        self._library.rcl_take_serialized_message(None, message, None, None)
        return self._code


@pytest.mark.parametrize("code", [1, 10, 400])
def test_an_error_of_rcl_is_reported_and_reset(world, take, code):
    topic, library = Both(world, IMAGE), take.rcl_library()
    broken = take.SerializedTake(Failing(library, code), bytes, pytest.fail)
    with pytest.raises(SourceError, match=rf"code {code}\): .*invalid"):
        broken(topic.subscriptions[0])
    assert library.rcutils_get_error_string().str == b"error not set"
    assert broken.form == "serialized"


def test_an_rmw_without_serialized_messages_gives_typed_ones(world, take):
    topic, lines = Both(world, IMAGE), []
    quick = take.SerializedTake(Failing(take.rcl_library(), 3), bytes, lines.append)
    topic.publisher.publish(image(world))
    found = topic.next(quick)
    assert isinstance(found, world.message(IMAGE))
    assert quick.form == "typed"
    assert len(lines) == 1
    assert lines[0].startswith("the RMW takes no serialized messages: ")


def test_another_layout_is_noticed(take, monkeypatch):
    class Longer(ctypes.Structure):
        _fields_ = (("flags", ctypes.c_size_t), *take._Array._fields_)

    monkeypatch.setattr(take, "_Array", Longer)
    lines = []
    assert take.take_of(IMAGE, lines.append).form == "typed"
    assert "another layout" in lines[0]


def test_rclpy_without_a_library_gives_typed_messages(take, monkeypatch):
    monkeypatch.setattr(take, "rclpy_implementation", object())
    lines = []
    assert take.take_of(IMAGE, lines.append).form == "typed"
    assert len(lines) == 1
    assert lines[0].startswith(f"{IMAGE} is taken as rclpy makes it")
    assert lines[0].endswith("rclpy has no library of its own")


def test_small_messages_are_typed(take):
    assert take.take_of("sensor_msgs/msg/CameraInfo", pytest.fail).form == "typed"


# -- in the node -------------------------------------------------------------------------------


def values_of(report):
    return {pair.key: pair.value for pair in report.status[0].values}


def test_a_damaged_image_is_counted_and_the_next_one_is_read(world):
    node = world.active()
    spec = SPECS["image"]
    camera = world.helper.create_publisher(world.message(spec.type), "image", 5)
    found = world.listen("ape/detections", SPECS["detections"])
    reports = world.listen("/diagnostics", DIAGNOSTICS)
    world.until(lambda: node.is_subscribed and camera.get_subscription_count())
    for data in (b"\0\1\0\0", b"\0\7\0\0" + bytes(60), b"\0\1\0\0" + b"\xff" * 60):
        camera.publish(data)
    world.until(lambda: node.images.watch.unreadable == 3)
    assert node.images.watch.received == 3
    assert not found
    camera.publish(an_image(world))
    world.until(lambda: found)
    world.until(lambda: reports and values_of(reports[-1])["received"] == "4")
    assert values_of(reports[-1])["taken_as"] == "serialized"
    assert values_of(reports[-1])["unreadable"] == "3"
