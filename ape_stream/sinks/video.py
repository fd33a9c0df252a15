"""Overlay video: H.264 in fragmented mp4 (or Matroska), readable even after a kill.

A plain mp4 keeps its index for the end and is lost without it. Here, fragments (clusters in
Matroska) are closed by time and flushed as they are made, and the encoder holds no frame back: a
kill costs less than a second of the stream, however slowly it comes. Where frames take long to
make, fragments are closed by the time of day as well: by a key frame, which begins a new one.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path  # noqa: TC003
from typing import TYPE_CHECKING, Final, Self

import av
import cv2
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace

from ape_stream import masks
from ape_stream.draw import draw
from ape_stream.errors import ConfigError, SinkError, reason_of
from ape_stream.files import is_whole
from ape_stream.masks.redact import redact
from ape_stream.sinks.file_sink import FileSink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from av.container import OutputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from ape_stream.types import FrameResult

__all__ = ["FORMATS", "VideoSink", "encoded"]

FORMATS: Final = {
    ".mp4": (
        "mp4",
        {
            "movflags": "empty_moov+default_base_moof+frag_keyframe",
            "frag_duration": "500000",  # microseconds
            "flush_packets": "1",
        },
    ),
    ".mkv": ("matroska", {"cluster_time_limit": "450", "flush_packets": "1"}),  # milliseconds
}
"""FFmpeg's name and options of a container, by suffix: half a second of stream per fragment."""

CLOCK: Final = Fraction(1, 90_000)
"""Time base of the written stream: exact for 24, 25, 30, 50 and 60 frames a second."""
FRAGMENT_S: Final = 0.5
"""Seconds of stream in a fragment, as in `FORMATS`."""
SLOW_S: Final = 0.8
"""Seconds of work after which a fragment is closed although its time is not over (a slow model)."""
SLICES: Final = "4"
"""Of an image, each with a thread of its own, where the file must not depend on the machine."""
KEY_FRAME_S: Final = 1.0
"""Seconds of stream between key frames, where players can seek to."""
NOMINAL_RATE: Final = 30
"""Frames a second that the encoder plans its bits for; each frame keeps its own time."""
LONGEST_SIDE: Final = 16_384
"""Pixels: x264 takes no larger images."""


class VideoSink(FileSink):
    """Draws every frame and encodes it with its own timestamp (mp4: counted from the first).

    Args:
        spec: The file (`.mp4` or `.mkv`); it holds one stream.
        preset: x264 preset, "ultrafast" .. "veryslow".
        crf: x264 quality, 0 (lossless) .. 51.
        overwrite: Replace an older file.
        reproducible: The file depends on the frames alone, not on the time that they took nor on
            the machine's cores. A kill of a slow run then costs more.
        blur: Prompts whose masks are blurred; with any of these two nothing is drawn in.
        pixelate: Prompts whose masks are pixelated.

    Raises:
        ConfigError: the file exists, or another run writes it; on writing, what is to be hidden is
            no prompt.
        SinkError: the file cannot be written, or results of a second stream come.
    """

    one_stream = True

    def __init__(
        self,
        spec: str,
        *,
        preset: str = "veryfast",
        crf: int = 23,
        overwrite: bool = False,
        reproducible: bool = False,
        blur: list[str] | None = None,
        pixelate: list[str] | None = None,
    ) -> None:
        super().__init__(spec, overwrite=overwrite)
        suffix = self.file.path.suffix.lower()
        if suffix not in FORMATS:
            raise ConfigError(f"{spec} is no video: name it {' or '.join(FORMATS)}")
        self._format, self._options = FORMATS[suffix]
        # Without B-frames and lookahead: what is given is encoded at once, and a fragmented mp4
        # has no edit list to take a delay back. Key frames come by time, not by this count.
        self._encoder = {
            "preset": preset, "crf": str(crf), "tune": "zerolatency", "g": "100000"
        }  # fmt: skip
        if reproducible:
            # With `zerolatency` every thread encodes a slice of its own.
            self._encoder["threads"] = SLICES
        self._longest_s = math.inf if reproducible else SLOW_S
        self._hidden = (blur or [], pixelate or [])
        self._stream: str | None = None
        self._writer: _Writer | None = None  # made with the first frame, which has the size

    def __enter__(self) -> Self:
        """Make sure that the file can be written."""
        self.file.open()
        return self

    def write(self, result: FrameResult) -> None:
        """Encode one frame.

        Raises:
            SinkError: it cannot be written, or it is of a second stream.
        """
        frame = result.frame
        if self._writer is None:
            self._stream = frame.stream
            self._writer = _Writer(
                self.file.part,
                frame.size,
                (self._format, self._options),
                self._encoder,
                longest_s=self._longest_s,
            )
        if frame.stream != self._stream:
            raise SinkError(f"{self.file.path} holds {self._stream} and cannot take {frame.stream}")
        shown = _redacted(result, *self._hidden) if any(self._hidden) else draw(result)
        self._writer.write(shown, frame.time_s)

    def close(self, error: BaseException | None = None) -> None:
        """Flush the encoder and close the file."""
        with self.file.finishing(whole=is_whole(error) and self._writer is not None):
            if self._writer is not None:
                self._writer.close()


@contextmanager
def encoded(path: str | Path) -> Iterator[None]:
    """Turn what FFmpeg and the operating system refuse into a `SinkError` of one line."""
    try:
        yield
    except (OSError, av.FFmpegError, ValueError) as error:
        raise SinkError(f"cannot write {path}: {reason_of(error)}") from error


class _Writer:
    """One encoded stream."""

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        container: tuple[str, dict[str, str]],
        encoder: dict[str, str],
        *,
        longest_s: float,
    ) -> None:
        self.path = path
        # 4:2:0 colour needs even sides; the odd row or column is repeated.
        self.size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        if max(self.size) > LONGEST_SIDE:
            raise SinkError(
                f"cannot write {path}: images of {size[1]}x{size[0]} are too large for H.264"
                f" ({LONGEST_SIDE} pixels a side): write .json, .jsonl, label maps or a .png sheet"
            )
        self._clock = _Clock(from_zero=container[0] == "mp4")
        self._next_key = 0
        self._fragments = _Fragments(longest_s)
        with encoded(path):
            self._container: OutputContainer = av.open(
                str(path), "w", format=container[0], options=container[1]
            )
            self._stream: VideoStream = self._container.add_stream(
                "libx264", rate=NOMINAL_RATE, options=encoder
            )
        self._stream.height, self._stream.width = self.size
        self._stream.pix_fmt = "yuv420p"
        # What OpenCV's conversion makes; untagged, players would take a large image for BT.709.
        self._stream.codec_context.colorspace = Colorspace.ITU601
        self._stream.codec_context.color_range = ColorRange.MPEG
        self._stream.time_base = self._stream.codec_context.time_base = CLOCK

    def write(self, image: NDArray[np.uint8], time_s: float) -> None:
        even = tuple(side + side % 2 for side in image.shape[:2])
        if even != self.size:  # the stream changed its size, an encoder cannot
            image = np.asarray(cv2.resize(image, self.size[::-1]), np.uint8)
        frame = av.VideoFrame.from_ndarray(_planes(image, self.size), format="yuv420p")
        frame.pts, frame.time_base = self._clock.ticks(time_s), CLOCK
        if frame.pts >= self._next_key or self._fragments.is_slow():
            frame.pict_type = PictureType.I
            # Set by us and not by the encoder's count: frame rates vary and frames are dropped.
            self._next_key = frame.pts + round(KEY_FRAME_S / CLOCK)
        self._fragments.add(frame.pts, begins=frame.pict_type == PictureType.I)
        with encoded(self.path):
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        with encoded(self.path):
            try:
                self._container.mux(self._stream.encode(None))  # what the encoder still holds
            finally:
                self._container.close()


def _redacted(
    result: FrameResult, blur: Sequence[str], pixelate: Sequence[str]
) -> NDArray[np.uint8]:
    """The frame with all regions of these prompts hidden, and nothing drawn in.

    Returns:
        (H, W, 3) uint8 blue-green-red, a new array.

    Raises:
        ConfigError: one of them is no prompt of the run: nothing of it would be hidden.
    """
    texts = result.prompts.texts
    if unknown := [text for text in (*blur, *pixelate) if text not in texts]:
        raise ConfigError(f"cannot hide {', '.join(unknown)}: no prompt of this run")
    image = result.frame.image.copy()
    # Of a model that gives boxes only, whole boxes are hidden.
    for index, mask in enumerate(masks.extents(result.instances)):
        text = texts[int(result.instances.prompt_ids[index])]
        if text in blur or text in pixelate:
            redact(image, mask, smooth=text in blur)
    return image


class _Fragments:
    """Where the muxer begins a fragment, and how long ago that was."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._tick = 0
        self._began_s = math.inf

    def is_slow(self) -> bool:
        """Whether the fragment has been open for too long."""
        return time.monotonic() - self._began_s >= self._longest_s

    def add(self, tick: int, *, begins: bool) -> None:
        """Take note of a frame; a key frame begins a fragment."""
        if begins or (tick - self._tick) * CLOCK >= FRAGMENT_S:
            self._tick, self._began_s = tick, time.monotonic()


class _Clock:
    """Stream times as rising ticks, which is all that encoders take.

    A stream that repeats a time gets the next tick. One whose time turns back, or jumps further
    than an mp4 can say, goes on one step after the frame before.

    Args:
        from_zero: Count from the first frame.
    """

    LONGEST_STEP_S: Final = 40_000.0
    """A sample's duration is 32 bits wide (ISO/IEC 14496-12, `trun`): 47,721 s of this clock."""
    LATEST_START_S: Final = 1e10
    """Matroska counts in milliseconds, 64 bits wide; the year 2286 as Unix time."""

    def __init__(self, *, from_zero: bool) -> None:
        self._from_zero = from_zero
        self._given_s: float | None = None
        self._at_s = 0.0
        self._step_s = 1 / NOMINAL_RATE
        self._tick = -1

    def ticks(self, time_s: float) -> int:
        if self._given_s is None:
            absolute = not self._from_zero and 0 <= time_s <= self.LATEST_START_S
            self._at_s = time_s if absolute else 0.0
        elif 0 <= time_s - self._given_s <= self.LONGEST_STEP_S:
            step_s = time_s - self._given_s
            self._at_s += step_s
            self._step_s = step_s or self._step_s
        else:  # also where one of them is no number
            self._at_s += self._step_s
        self._given_s = time_s
        # At least one tick further: encoders refuse a time that does not rise.
        self._tick = max(self._tick + 1, round(self._at_s / CLOCK))
        return self._tick


def _planes(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) BGR to I420 planes of an even size; OpenCV does it in a fifth of swscale's time."""
    rows, cols = size[0] - image.shape[0], size[1] - image.shape[1]
    if rows or cols:
        image = np.pad(image, ((0, rows), (0, cols), (0, 0)), mode="edge")
    planes: NDArray[np.uint8] = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)
    return planes
