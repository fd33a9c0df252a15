"""What the dds backend writes is what rosbags writes, byte for byte, and is read back."""

from dataclasses import replace

import numpy as np
import pytest
from wire_samples import a_result

pytest.importorskip("rosbags")

from ape_nodes.ros2.dds.cdr import Packer, unpack
from ape_nodes.ros2.publisher import ResultPublisher
from ape_nodes.ros2.topics import OUTPUTS
from ape_nodes.ros2.types import plain_encoder, type_store
from ape_stream.depth import Camera, Depth
from ape_stream.errors import SourceError

IMAGE = "sensor_msgs/msg/Image"
TYPES = {spec.name: spec.type for spec in OUTPUTS}


@pytest.fixture(scope="module")
def store():
    return type_store()


def an_image(store, height, width):
    encoder = plain_encoder(store, "mono8")
    pixels = np.random.default_rng(height).integers(0, 256, (height, width), np.uint8)
    return encoder.image(encoder.header(a_result(1).frame), pixels)


def test_every_output_has_the_bytes_of_rosbags(store):
    publisher = ResultPublisher(plain_encoder(store), None)
    result = a_result(5)
    size = result.frame.size
    depth = Depth(np.full(size, 1.5, np.float32), Camera(size, 50, 50, 8, 8))
    result = replace(result, frame=replace(result.frame, depth=depth))
    sent = dict(publisher.messages(result, lambda _: True))
    assert set(sent) == set(TYPES)
    for name, message in sent.items():
        expected = bytes(store.serialize_cdr(message, TYPES[name]))
        packed = bytes(Packer(store, TYPES[name]).pack(message))
        assert packed == expected + bytes(-len(expected) % 4), name


def test_a_reused_buffer_keeps_nothing_of_the_message_before(store):
    packer = Packer(store, IMAGE)
    for height, width in ((9, 31), (3, 5), (1, 1), (10, 33), (1, 1)):
        message = an_image(store, height, width)
        expected = bytes(store.serialize_cdr(message, IMAGE))
        assert bytes(packer.pack(message)) == expected + bytes(-len(expected) % 4)


def test_arrays_that_are_read_are_views(store):
    message = an_image(store, 4, 8)
    data = bytes(Packer(store, IMAGE).pack(message))
    read = unpack(store, data, IMAGE)
    np.testing.assert_array_equal(read.data, message.data)
    assert np.shares_memory(read.data, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("cut", [0, 3, 4, 20, -5])
def test_damaged_bytes_are_reported(store, cut):
    data = bytes(Packer(store, IMAGE).pack(an_image(store, 4, 8)))
    with pytest.raises(SourceError, match=r"not a sensor_msgs/msg/Image"):
        unpack(store, data[:cut], IMAGE)
