"""Messages with many bytes, read from CDR: what rosbags writes is read back, and nothing else."""

import dataclasses
import random

import numpy as np
import pytest

pytest.importorskip("rosbags")

from ape_nodes.ros2.images import to_bgr
from ape_nodes.ros2.rclpy_node.cdr import READERS
from ape_nodes.ros2.types import type_store
from ape_stream.errors import SourceError

STORE = type_store()
IMAGE, JPEG, CLOUD = READERS


def made(kind, **fields):
    return STORE.types[kind](**fields)


def a_header(frame_id):
    stamp = made("builtin_interfaces/msg/Time", sec=-3, nanosec=7)
    return made("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def some_bytes(count):
    return np.random.default_rng(count).integers(0, 256, count, np.uint8)


def an_image(frame_id="lens", encoding="bgr8"):
    return made(
        IMAGE, header=a_header(frame_id), height=4, width=5, encoding=encoding, is_bigendian=1,
        step=17, data=some_bytes(68),
    )  # fmt: skip


def a_cloud(names=("x", "y", "z", "rgb")):
    fields = [
        made("sensor_msgs/msg/PointField", name=name, offset=4 * k, datatype=7, count=1)
        for k, name in enumerate(names)
    ]
    return made(
        CLOUD, header=a_header("lens"), height=2, width=3, fields=fields, is_bigendian=False,
        point_step=16, row_step=48, data=some_bytes(95), is_dense=True,
    )  # fmt: skip


def a_jpeg(count=11):
    return made(JPEG, header=a_header("a"), format="rgb8; jpeg", data=some_bytes(count))


def written(message, *, little=True):
    return memoryview(
        bytes(STORE.serialize_cdr(message, message.__msgtype__, little_endian=little))
    )


def plain(message):
    """Values without their classes; those of bytes as bytes."""
    if isinstance(message, (np.ndarray, memoryview)):
        return bytes(message)
    if isinstance(message, (list, tuple)):
        return [plain(one) for one in message]
    if not dataclasses.is_dataclass(message):
        return message
    names = [one.name for one in dataclasses.fields(message) if one.name != "__msgtype__"]
    # A constant of rosbags' classes is a field in capital letters.
    return {name: plain(getattr(message, name)) for name in names if name.islower()}


# Texts of every length move what follows by every remainder.
MESSAGES = [
    *(an_image("abcdefgh"[:k]) for k in range(9)),
    *(an_image("", "rgba16"[:k]) for k in range(7)),
    an_image("Ω λ"), a_jpeg(), a_jpeg(0), a_cloud(), a_cloud(()), a_cloud(("x", "längst")),
]  # fmt: skip


@pytest.mark.parametrize("little", [True, False], ids=["little", "big"])
@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: one.__msgtype__.split("/")[-1])
def test_what_rosbags_writes_is_read(message, little):
    data = written(message, little=little)
    read = READERS[message.__msgtype__](data)
    assert plain(read) == plain(message)
    assert read.data.obj is data.obj, "a view"


@pytest.mark.parametrize(
    "message", [an_image(), a_jpeg(), a_cloud()], ids=["image", "jpeg", "cloud"]
)
def test_a_message_that_is_cut_short_is_refused(message):
    data = written(message)
    read = READERS[message.__msgtype__]
    # rosbags may pad a message, which is not missed.
    needed = next(k for k in range(len(data) - 3, len(data) + 1) if reads(read, data[:k]))
    for count in range(needed):
        with pytest.raises(SourceError, match=r"not in CDR|ends before"):
            read(data[:count])


def reads(read, data):
    try:
        read(data)
    except SourceError:
        return False
    return True


@pytest.mark.parametrize("name", [b"\x00\x02", b"\x00\x03", b"\x00\x07", b"\x01\x00", b"\xff\xff"])
def test_another_encoding_is_refused(name):
    with pytest.raises(SourceError, match="not in CDR"):
        READERS[IMAGE](memoryview(name + bytes(written(an_image()))[2:]))


def test_a_cloud_that_claims_many_fields_is_refused_before_they_are_made():
    data = bytearray(written(a_cloud(())))
    at = data.index((2).to_bytes(4, "little") + (3).to_bytes(4, "little")) + 8
    data[at : at + 4] = (2**32 - 1).to_bytes(4, "little")
    with pytest.raises(SourceError, match="4294967295 fields"):
        READERS[CLOUD](memoryview(bytes(data)))


@pytest.mark.parametrize(
    "message", [an_image(), a_jpeg(), a_cloud()], ids=["image", "jpeg", "cloud"]
)
def test_damaged_bytes_give_a_message_or_an_error_of_ours(message):
    read, chance, outcomes = READERS[message.__msgtype__], random.Random(5), set()
    for _ in range(4000):
        data = bytearray(written(message))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            width = chance.choice([1, 4])
            data[at : at + width] = chance.choice(
                [bytes(width), b"\xff" * width, chance.randbytes(width)]
            )
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        view = memoryview(bytes(data))
        try:
            found = read(view)
        except SourceError:
            outcomes.add("refused")
            continue
        outcomes.add("read")
        assert found.data.obj is view.obj, "nothing is made of a length that is only claimed"
        if message.__msgtype__ == IMAGE:
            use(found)
    assert outcomes == {"read", "refused"}


def use(image):
    try:
        pixels = to_bgr(image)
    except SourceError:
        return
    assert pixels.shape == (image.height, image.width, 3)
