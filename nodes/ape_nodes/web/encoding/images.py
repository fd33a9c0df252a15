"""Images for viewers: each size and codec is encoded once, for all who want it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Literal

import av
import cv2
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace

from ape_stream.wire.codecs import encode_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from av.video.codeccontext import VideoCodecContext
    from numpy.typing import NDArray

    from ape_nodes.web.protocol import View

__all__ = ["WIDTHS", "H264Encoder", "Variant", "encode_jpeg", "scaled", "width_for"]

WIDTHS: Final = (1920, 1280, 960, 640, 320)
"""Widths that are served: few, so that viewers share them."""
QUALITY: Final = 80
KEY_FRAME_S: Final = 2.0
NOMINAL_RATE: Final = 30
QP: Final = 26
"""H.264 quantiser of an image without much noise; x264 codes key frames 3 finer."""
MAX_QP: Final = 40
BYTES_PER_PIXEL: Final = 0.04
"""Of images between key frames, a quarter of a JPEG's: with more the quantiser rises."""
_CLOCK: Final = Fraction(1, 1_000_000)
_SPS: Final = b"\0\0\0\1\x67"


@dataclass(frozen=True, slots=True)
class Variant:
    """One kind of message about a camera, the same for all viewers who want it."""

    codec: Literal["jpeg", "h264", "sync", "masks"]
    """sync: a JPEG together with its masks; masks: without an image."""
    width: int = 0
    """Most pixels of a row of the image."""
    view: View = "instances"
    """What the masks show."""

    @property
    def has_masks(self) -> bool:
        """Whether it is of a result, not of a frame alone."""
        return self.codec in {"sync", "masks"}


def width_for(wanted: int, level: int = 0) -> int:
    """The width that is served to a viewer.

    Args:
        wanted: Widest image that is of use to it.
        level: Steps down that its connection needs.
    """
    fitting = [width for width in WIDTHS if width <= wanted] or [WIDTHS[-1]]
    return fitting[min(level, len(fitting) - 1)]


def scaled(image: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """The image with at most `width` pixels a row, never larger than it was.

    To half and less by the mean of the area of each pixel. To more than half OpenCV has no fast
    form of it: a Gaussian, wider for a larger reduction, leaves out what cannot be shown, and
    bicubic interpolation follows. That is as near to Lanczos's filter, in half the time.
    """
    rows, cols = image.shape[:2]
    if cols <= width:
        return image
    size, reduction = (width, max(1, round(rows * width / cols))), cols / width
    kind = cv2.INTER_AREA
    if reduction < 2:
        image = np.asarray(cv2.GaussianBlur(image, (3, 3), reduction / 3), np.uint8)
        kind = cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=kind), np.uint8)


def encode_jpeg(image: NDArray[np.uint8], width: int) -> bytes:
    """(H, W, 3) uint8 blue-green-red as a JPEG of at most `width` pixels a row."""
    return encode_image(scaled(image, width), "jpeg", QUALITY)


class H264Encoder:
    """H.264 in Annex B without delay: what is given is encoded at once.

    The quantiser is constant from one key frame to the next: x264's own rate control first looks at
    every image at half its size, a quarter of the whole time. Noise, which would make images many
    times as large, is met here instead: the quantiser of the next key frame follows their sizes.

    Args:
        width: Most pixels of a row.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._context: VideoCodecContext | None = None
        self._size = (0, 0)
        self._key_s = 0.0
        self._pts = -1
        self._qp = QP
        self._sizes: list[int] = []
        """Bytes of the images since the last key frame."""
        self.codec = ""
        """WebCodecs' name of what comes out, such as avc1.42c01f; known after the first image."""

    def encode(self, image: NDArray[np.uint8], *, key: bool) -> tuple[bytes, bool]:
        """Encode the next image.

        Args:
            image: (H, W, 3) uint8 blue-green-red.
            key: Whether somebody needs a key frame; there is one every 2 s anyway.

        Returns:
            The access unit, and whether it is a key frame.
        """
        image = scaled(image, self._width)
        # 4:2:0 colour needs even sides: an odd row or column is left out.
        image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        now = time.monotonic()
        size = image.shape[:2]
        key = key or size != self._size or now - self._key_s >= KEY_FRAME_S
        if key:
            self._begin(size, now)
        assert self._context is not None  # noqa: S101 (the first image is a key frame)
        frame = _frame(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8))
        self._pts = max(self._pts + 1, int(now * 1e6))
        frame.pts, frame.time_base = self._pts, _CLOCK
        frame.pict_type = PictureType.I if key else PictureType.NONE
        packets = self._context.encode(frame)
        data = b"".join(bytes(packet) for packet in packets)
        if key:
            # Profile, constraints and level as in the sequence parameter set (RFC 6381, 3.3).
            at = data.find(_SPS) + len(_SPS)
            self.codec = f"avc1.{data[at : at + 3].hex()}"
        else:
            self._sizes.append(len(data))
        return data, any(packet.is_keyframe for packet in packets)

    def _begin(self, size: tuple[int, int], now: float) -> None:
        """Begin a group of images, with a new context where their size or quantiser changes."""
        qp = _next_qp(self._qp, self._sizes, size[0] * size[1])
        if self._context is None or (size, qp) != (self._size, self._qp):
            self._context = _x264(size[1], size[0], qp)
        self._size, self._qp, self._key_s = size, qp, now
        self._sizes = []

    @property
    def since_key_s(self) -> float:
        """Seconds since the last key frame."""
        return time.monotonic() - self._key_s


def _next_qp(qp: int, sizes: Sequence[int], pixels: int) -> int:
    """The quantiser after images of so many bytes each; six more about halve them."""
    if not sizes:
        return qp
    share = sum(sizes) / len(sizes) / (pixels * BYTES_PER_PIXEL)
    if share > 1:
        return min(MAX_QP, qp + math.ceil(4 * math.log2(share)))
    # Step by step: where noise passes the dead zone, one finer may be almost three times as much.
    return max(QP, qp - 1) if share < 1 / 2 else qp


def _frame(planes: NDArray[np.uint8]) -> av.VideoFrame:
    """A frame of (1.5 H, W) uint8 I420 planes, where possible without a copy: x264 makes its own.

    PyAV 18 takes the height of such a buffer for a multiple of 4.
    """
    whole = planes.shape[0] % 6 == 0
    make = av.VideoFrame.from_numpy_buffer if whole else av.VideoFrame.from_ndarray
    return make(planes, format="yuv420p")


def _x264(width: int, height: int, qp: int = QP) -> VideoCodecContext:
    context: VideoCodecContext = av.CodecContext.create("libx264", "w")
    context.width, context.height = width, height
    context.pix_fmt = "yuv420p"
    context.time_base = _CLOCK
    context.framerate = Fraction(NOMINAL_RATE)  # decides the level
    context.thread_count = 1
    context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG
    context.profile = "Baseline"
    context.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "qp": str(qp),
        "g": "100000",  # key frames come by time and on demand
        "x264-params": "annexb=1:repeat-headers=1:threads=1",
    }
    return context
