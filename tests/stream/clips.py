"""Small clips made by the tests; every frame shows its own number."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np

from ape_stream.sources.video import VideoSource

SIZE = (96, 128)
RATE = 30


def image_of(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A grey image whose left eight bars spell the number in binary; survives any codec."""
    image = np.full((*size, 3), 40, np.uint8)
    bar = size[1] // 8
    for bit in range(8):
        if number >> bit & 1:
            image[:, bit * bar : (bit + 1) * bar] = 210
    return image


def number_of(image: np.ndarray) -> int:
    """The number that an image spells."""
    bar = image.shape[1] // 8
    row = image[image.shape[0] // 2, bar // 2 :: bar, 1][:8]
    return sum(1 << bit for bit, value in enumerate(row) if value > 125)


def write_clip(
    path,
    *,
    frames=20,
    codec="libx264",
    pixels="yuv420p",
    size=SIZE,
    times=None,
    container=None,
    options=None,
    setup=None,
    mux_options=None,
    first=0,
):
    """Encode numbered images; `times` are milliseconds, default 30 frames a second."""
    with av.open(str(path), "w", format=container, options=mux_options or {}) as output:
        stream = output.add_stream(codec, rate=RATE, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        if setup is not None:
            setup(stream)
        clock = Fraction(1, 1000) if times is not None else Fraction(1, RATE)
        stream.time_base = stream.codec_context.time_base = clock
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(image_of(first + k, size), format="bgr24")
            frame.pts, frame.time_base = (times[k] if times is not None else first + k), clock
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return str(path)


def numbers(frames) -> list[int]:
    """The numbers that frames spell."""
    return [number_of(frame.image) for frame in frames]


def read_video(spec, **options):
    """All frames of a video."""
    with VideoSource(str(spec), **options) as source:
        return list(source)


def jpeg(number):
    return cv2.imencode(".jpg", image_of(number))[1].tobytes()
