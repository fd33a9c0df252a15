"""Overlay video: H.264 in fragmented mp4 (or Matroska), readable even after a kill.

Fragments that begin with a key frame and are flushed as they are made leave a readable file at any
moment; a plain mp4 keeps its index for the end and is lost without it.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Self

import av
import cv2
import numpy as np

from ape_stream.draw import draw
from ape_stream.errors import SinkError

if TYPE_CHECKING:
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
    """Draws every frame and encodes it with its own timestamp.

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
        self._encoder = {"preset": preset, "crf": str(crf), "g": str(KEY_EVERY)}
        self._writers: dict[str, _Writer] = {}

    def __enter__(self) -> Self:
        """Make the folder."""
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"cannot write {self.path}: {error.strerror}") from error
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
            path = self.path.replace("{stream}", stream)
            self._writers[stream] = _Writer(path, result.frame.size, self._encoder)
        self._writers[stream].write(draw(result), result.frame.time_s)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Flush the encoders and close the files."""
        for writer in self._writers.values():
            writer.close()


class _Writer:
    """One encoded stream."""

    def __init__(self, path: str, size: tuple[int, int], encoder: dict[str, str]) -> None:
        self.path = path
        # 4:2:0 colour needs even sides; the odd row or column is repeated.
        self.size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        self._last = -1
        try:
            self._container: OutputContainer = av.open(path, "w", options=_container_options(path))
            self._stream: VideoStream = self._container.add_stream(
                "libx264", rate=NOMINAL_RATE, options=encoder
            )
        except (OSError, av.FFmpegError, ValueError) as error:
            raise SinkError(f"cannot write {path}: {error}") from error
        self._stream.height, self._stream.width = self.size
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = CLOCK

    def write(self, image: NDArray[np.uint8], time_s: float) -> None:
        frame = av.VideoFrame.from_ndarray(_planes(image, self.size), format="yuv420p")
        # Encoders want rising timestamps: a stream that repeats one gets the next tick.
        self._last = max(self._last + 1, round(time_s / CLOCK))
        frame.pts, frame.time_base = self._last, CLOCK
        try:
            self._container.mux(self._stream.encode(frame))
        except (OSError, av.FFmpegError) as error:
            raise SinkError(f"cannot write {self.path}: {error}") from error

    def close(self) -> None:
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        except (OSError, av.FFmpegError) as error:
            raise SinkError(f"cannot write {self.path}: {error}") from error


def _container_options(path: str) -> dict[str, str]:
    return {"flush_packets": "1"} if path.endswith(".mkv") else OPTIONS


def _planes(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) BGR to I420 planes of an even size; OpenCV does it in a fifth of swscale's time."""
    down, across = size[0] - image.shape[0], size[1] - image.shape[1]
    if down or across:
        image = np.pad(image, ((0, down), (0, across), (0, 0)), mode="edge")
    planes: NDArray[np.uint8] = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)
    return planes
