"""Overlay video: H.264 in fragmented mp4 (or Matroska), readable even after a kill.

Fragments that begin with a key frame and are flushed as they are made leave a readable file at any
moment; a plain mp4 keeps its index for the end and is lost without it.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Self

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from ape_stream.draw import draw
from ape_stream.errors import SinkError
from ape_stream.sinks.files import file_name, open_output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from av.container import OutputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from ape_stream.types import FrameResult

__all__ = ["VideoSink"]

CLOCK = Fraction(1, 90_000)
"""Time base of the written stream: exact for 24, 25, 30, 50 and 60 frames a second."""
KEY_EVERY = 30
"""Frames per fragment: what a kill can cost."""
NOMINAL_RATE = 30
OPTIONS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}


class VideoSink:
    """Draws every frame and encodes it with its own timestamp (mp4: counted from the first).

    Args:
        spec: the file (`.mp4` or `.mkv`); it is replaced. With several streams its name must hold
            `{stream}`.
        preset: x264 preset, "ultrafast" .. "veryslow".
        crf: x264 quality, 0 (lossless) .. 51.

    Raises:
        SinkError: the file cannot be written.
    """

    def __init__(self, spec: str, *, preset: str = "veryfast", crf: int = 23) -> None:
        self.path = spec
        # Without B-frames: a fragmented mp4 has no edit list to take their delay back.
        self._encoder = {"preset": preset, "crf": str(crf), "g": str(KEY_EVERY), "bf": "0"}
        self._writers: dict[str, _Writer] = {}

    def __enter__(self) -> Self:
        """Make sure that the file can be written."""
        if "{stream}" not in self.path:
            open_output(self.path, "wb").close()
        return self

    def write(self, result: FrameResult) -> None:
        """Encode one frame.

        Raises:
            SinkError: it cannot be written, or a second stream has no file of its own.
        """
        stream = result.frame.stream
        if stream not in self._writers:
            if self._writers and "{stream}" not in self.path:
                raise SinkError(
                    f"{self.path} takes one stream: name the file with {{stream}} for several"
                )
            path = self.path.replace("{stream}", file_name(stream))
            open_output(path, "wb").close()
            self._writers[stream] = _Writer(path, result.frame.size, self._encoder)
        self._writers[stream].write(draw(result), result.frame.time_s)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Flush the encoders and close the files, all of them whatever one of them does."""
        with ExitStack() as stack:
            for writer in self._writers.values():
                stack.callback(writer.close)


@contextmanager
def _encoded(path: str) -> Iterator[None]:
    """Turn what FFmpeg and the operating system refuse into a `SinkError` of one line."""
    try:
        yield
    except (OSError, av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SinkError(f"cannot write {path}: {reason}") from error


class _Writer:
    """One encoded stream."""

    def __init__(self, path: str, size: tuple[int, int], encoder: dict[str, str]) -> None:
        self.path = path
        # 4:2:0 colour needs even sides; the odd row or column is repeated.
        self.size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        self._last = -1
        with _encoded(path):
            self._container: OutputContainer = av.open(path, "w", options=_container_options(path))
            self._stream: VideoStream = self._container.add_stream(
                "libx264", rate=NOMINAL_RATE, options=encoder
            )
        self._stream.height, self._stream.width = self.size
        self._stream.pix_fmt = "yuv420p"
        # What OpenCV's conversion makes; untagged, players would take a large picture for BT.709.
        self._stream.codec_context.colorspace = Colorspace.ITU601
        self._stream.codec_context.color_range = ColorRange.MPEG
        self._stream.time_base = self._stream.codec_context.time_base = CLOCK

    def write(self, image: NDArray[np.uint8], time_s: float) -> None:
        even = tuple(side + side % 2 for side in image.shape[:2])
        if even != self.size:  # the stream changed its size, an encoder cannot
            image = np.asarray(cv2.resize(image, self.size[::-1]), np.uint8)
        frame = av.VideoFrame.from_ndarray(_planes(image, self.size), format="yuv420p")
        # Encoders want rising timestamps: a stream that repeats one gets the next tick.
        self._last = max(self._last + 1, round(time_s / CLOCK))
        frame.pts, frame.time_base = self._last, CLOCK
        with _encoded(self.path):
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        with _encoded(self.path):
            try:
                self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()


def _container_options(path: str) -> dict[str, str]:
    return {"flush_packets": "1"} if path.endswith(".mkv") else OPTIONS


def _planes(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) BGR to I420 planes of an even size; OpenCV does it in a fifth of swscale's time."""
    down, across = size[0] - image.shape[0], size[1] - image.shape[1]
    if down or across:
        image = np.pad(image, ((0, down), (0, across), (0, 0)), mode="edge")
    planes: NDArray[np.uint8] = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)
    return planes
