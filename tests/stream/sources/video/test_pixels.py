"""Frames become images that are upright, have square pixels, and show their true colours."""

from __future__ import annotations

import gc
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import RATE, number_of, read_video, write_clip

ONE = 1 << 16
"""1 in the 16.16 numbers of a display matrix."""


def stored(path, matrix, pixels="yuv420p", size=(48, 64)):
    """A clip of one noisy frame with this display matrix (a, b, c, d); returns the frame."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    a, b, c, d = (ONE * v for v in matrix)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=RATE, options={"qp": "1"})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        output.mux(stream.encode(None))
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="bgr24")


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [  # ISO/IEC 14496-12, 8.2.2: (x, y) is shown at (ax + cy, bx + dy)
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
    ],
    ids=["as it is", "90", "180", "270", "hflip", "vflip", "transpose", "transverse"],
)
def test_the_display_matrix_turns_and_mirrors(tmp_path, matrix, shown):
    image = stored(tmp_path / "phone.mp4", matrix)
    (frame,) = read_video(tmp_path / "phone.mp4")
    np.testing.assert_array_equal(frame.image, shown(image))


def test_a_matrix_that_scales_too_turns_the_same_way(tmp_path):
    image = stored(tmp_path / "phone.mp4", (0, 2, -2, 0))
    (frame,) = read_video(tmp_path / "phone.mp4")
    np.testing.assert_array_equal(frame.image, np.rot90(image, -1))


def test_a_decoded_frame_is_freed_with_its_last_user(tmp_path):
    stored(tmp_path / "phone.mp4", (0, 1, -1, 0), size=(46, 62))  # no other test has this size
    gc.collect()
    gc.disable()  # memory must not wait for Python to look for circles
    try:
        read_video(tmp_path / "phone.mp4")
        frames = [it for it in gc.get_objects() if issubclass(type(it), av.VideoFrame)]
        assert not [frame for frame in frames if (frame.height, frame.width) == (46, 62)]
    finally:
        gc.enable()


# ---------------------------------------------------------------------------------- square pixels


def with_aspect(path, aspect, matrix=None):
    """Twelve numbered frames of 128x96 whose pixels are `aspect` times as wide as high."""

    def setup(stream):
        stream.codec_context.sample_aspect_ratio = aspect
        if matrix is not None:
            a, b, c, d = (ONE * v for v in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])

    return write_clip(path, frames=12, first=0b10110001, setup=setup)


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(2), (96, 256)),
        (Fraction(16, 11), (96, 186)),
        (Fraction(1, 2), (192, 128)),
        (Fraction(8, 9), (108, 128)),
        (Fraction(1), (96, 128)),
        (Fraction(500), (96, 128)),  # a damaged header
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_pixels_are_made_square(tmp_path, aspect, size, suffix):
    path = with_aspect(tmp_path / f"wide.{suffix}", aspect)
    for number, frame in enumerate(read_video(path)):
        assert frame.size == size
        assert number_of(frame.image) == 0b10110001 + number
    assert read_video(path, square_pixels=False)[0].size == (96, 128)


def test_the_pixels_of_a_turned_image_are_turned_with_it(tmp_path):
    path = with_aspect(tmp_path / "turned.mp4", Fraction(2), matrix=(0, 1, -1, 0))
    assert read_video(path)[0].size == (256, 96)
    assert read_video(path, square_pixels=False)[0].size == (128, 96)


def test_pixels_that_change_their_shape_in_the_middle(tmp_path):
    """A broadcast that goes over from 4:3 to 16:9."""
    parts = [with_aspect(tmp_path / f"{k}.ts", Fraction(k)) for k in (1, 2)]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join((tmp_path / part).read_bytes() for part in parts))
    widths = [frame.size[1] for frame in read_video(path)]
    assert len(widths) == 24
    assert widths == sorted(widths)  # FFmpeg says so a few frames early
    assert (widths[0], widths[-1]) == (128, 256)


# ---------------------------------------------------------------------------------------- colours


def yuv(rgb, red, blue, *, full):
    """BT.601/709 equations: RGB 0..255 to 8-bit Y, Cb, Cr."""
    r, g, b = (v / 255 for v in rgb)
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / 2 / (1 - blue), (r - y) / 2 / (1 - red)
    if full:
        return 255 * y, 128 + 255 * cb, 128 + 255 * cr
    return 16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize(("tag", "red", "blue"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114)])
def test_colours_follow_the_declared_matrix_and_range(tmp_path, tag, red, blue, pixels, full):
    rgb = (200, 60, 30)
    depth = 4 if pixels.endswith("10le") else 1
    with av.open(str(tmp_path / "c.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=RATE, options={"qp": "1"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        stream.codec_context.colorspace = tag
        stream.codec_context.color_range = 2 if full else 1
        for k in range(3):
            frame = av.VideoFrame(64, 48, pixels)
            frame.pts, frame.colorspace, frame.color_range = k, tag, 2 if full else 1
            kind = np.uint16 if depth == 4 else np.uint8
            for plane, value in zip(frame.planes, yuv(rgb, red, blue, full=full), strict=True):
                samples = plane.buffer_size // np.dtype(kind).itemsize
                plane.update(np.full(samples, round(value * depth), kind).tobytes())
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    for frame in read_video(tmp_path / "c.mp4"):
        assert np.abs(frame.image.reshape(-1, 3).mean(axis=0) - rgb[::-1]).max() <= 3
