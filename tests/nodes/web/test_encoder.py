import av
import cv2
import numpy as np
import pytest
from av.codec.context import Flags
from av.video.frame import PictureType

from ape_nodes.web.encoding import images as encoding


def moving(height, width):
    """Six images, each a few pixels on, with rows in one piece or not."""
    rng = np.random.default_rng(width)
    wide = cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), (width + 40, height))
    return [np.ascontiguousarray(wide[:, 5 * k : 5 * k + width]) for k in range(6)]


def encoded_from_a_copy(images):
    """The same encoder, given planes that libav has copied into memory of its own."""
    height, width = (side // 2 * 2 for side in images[0].shape[:2])
    context, units = encoding._x264(width, height), []
    for k, image in enumerate(images):
        planes = cv2.cvtColor(image[:height, :width], cv2.COLOR_BGR2YUV_I420)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = k, encoding._CLOCK
        frame.pict_type = PictureType.NONE if k else PictureType.I
        units.append(b"".join(bytes(packet) for packet in context.encode(frame)))
    return units


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (99, 131), (94, 130), (18, 34)])
def test_h264_is_the_same_to_the_bit_as_from_a_copy(size):
    images = moving(*size)
    ours = encoding.H264Encoder(1280)
    assert [ours.encode(image, key=False)[0] for image in images] == encoded_from_a_copy(images)


def test_h264_holds_the_image():
    (image, *_) = moving(96, 128)
    data, key = encoding.H264Encoder(1280).encode(image, key=False)
    reader = av.CodecContext.create("h264", "r")
    (shown, *_) = [*reader.decode(av.Packet(data)), *reader.decode(None)]
    assert key
    assert np.abs(shown.to_ndarray(format="bgr24").astype(int) - image).mean() < 12


def sizes(encoder, reader, images):
    """Bytes of a key frame, and the mean of the images after it; all of them can be read."""
    units = [encoder.encode(image, key=not k)[0] for k, image in enumerate(images)]
    shown = [frame for unit in units for frame in reader.decode(av.Packet(unit))]
    assert len(shown) == len(units)
    key, *others = map(len, units)
    return key, sum(others) / len(others)


def test_noise_coarsens_h264_and_its_end_restores_it():
    encoder, calm = encoding.H264Encoder(160), 6 * moving(96, 160)[:1]
    reader = av.CodecContext.create("h264", "r")
    reader.thread_count, reader.flags = 1, Flags.low_delay
    rng = np.random.default_rng(0)
    noisy = [np.clip(im + rng.normal(0, 20, im.shape), 0, 255).astype(np.uint8) for im in calm]
    budget = 96 * 160 * encoding.BYTES_PER_PIXEL

    first = [sizes(encoder, reader, calm) for _ in range(2)][-1]  # the first one names x264, too
    loud = [sizes(encoder, reader, noisy)[1] for _ in range(4)]
    again = [sizes(encoder, reader, calm) for _ in range(18)]

    assert loud[0] > 3 * budget
    assert loud[-1] < budget
    assert again[0][0] < first[0]  # coarse still
    assert again[-1] == first


def test_the_quantiser_stays_within_its_range():
    assert encoding._next_qp(30, [], 1000) == 30
    assert encoding._next_qp(encoding.QP, [1], 1000) == encoding.QP
    assert encoding._next_qp(30, [10**6], 1000) == encoding.MAX_QP
    assert encoding._next_qp(30, [21], 1000) == 30
    assert encoding._next_qp(30, [19], 1000) == 29
