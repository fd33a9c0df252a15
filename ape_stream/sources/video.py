"""Video files and network streams, decoded by PyAV (FFmpeg).

What bites and how it is met:
  * timestamps are the frames' own (`pts * time_base`), never a counter over a nominal rate;
  * the decoder is flushed at the end, so the last frames are not lost;
  * a display matrix (phones) turns the picture;
  * every open and read of a network stream has a time limit; a live stream that breaks off is
    opened again, with growing pauses.
"""

from __future__ import annotations

import random
import re
import threading
import time
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Self

import av
import numpy as np

from ape_stream.errors import SourceError, TruncatedError
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

__all__ = ["VideoSource"]

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
OPEN_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 1.0
"""No read blocks longer: a stop is only as fast as that."""
PATIENCE_S: Final = 15.0
"""A live stream that stays silent this long has ended."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 3.0
MISSING_FRAMES, MISSING_SHARE, MISSING_S = 3, 0.02, 0.5
"""How far an undamaged file may stay behind what its own header promises (edit lists, rounding)."""


class VideoSource:
    """One video stream of a file or URL.

    Args:
        spec: a path, or a URL that FFmpeg opens (rtsp, http, tcp, udp, rtmp).
        name: of the stream, written into every frame; None for the spec itself.
        stream: which of the container's video streams, counted from 0.
        timeout_s: limit for opening a URL, seconds.

    Raises:
        SourceError: on entering, it cannot be opened, has no such stream, or holds no video.
    """

    def __init__(
        self,
        spec: str,
        *,
        name: str | None = None,
        stream: int = 0,
        timeout_s: float = OPEN_TIMEOUT_S,
    ) -> None:
        self.spec = spec
        self.name = name or spec
        self.live = False
        self._number = stream
        self._timeout_s = timeout_s
        self._remote = _URL.match(spec) is not None
        self._closed = threading.Event()
        self._container: InputContainer | None = None

    @property
    def frame_count(self) -> int | None:
        """Frames that the container promises, or None where it does not say."""
        if self._container is None or self.live:
            return None
        promised = self._stream.frames
        if not promised and self._stream.average_rate and self._container.duration:
            promised = round(self._container.duration / av.time_base * self._stream.average_rate)
        return promised or None

    def __enter__(self) -> Self:
        """Open the container and find the stream."""
        self._open()
        container = self._container
        # A URL without a length is live; one with a length is a file that lies elsewhere.
        self.live = self._remote and container is not None and container.duration is None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Close the container."""
        self._closed.set()
        self._close()

    def _open(self) -> None:
        options = {"rtsp_transport": "tcp"} if self.spec.lower().startswith("rtsp") else {}
        limits = (self._timeout_s, READ_TIMEOUT_S) if self._remote else None
        try:
            self._container = av.open(self.spec, options=options, timeout=limits)
        except (OSError, av.FFmpegError, ValueError) as error:
            raise SourceError(f"cannot open {self.spec}: {_reason(error)}") from error
        videos = self._container.streams.video
        if self._number >= len(videos):
            found = len(videos)
            self._close()
            if not found:
                raise SourceError(f"{self.spec} holds no video")
            raise SourceError(
                f"{self.spec} has {found} video stream(s): choose a --stream from 0 to {found - 1}"
            )
        self._stream: VideoStream = videos[self._number]
        self._stream.thread_type = "AUTO"

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame; see `Source`."""
        decoded = self._live_frames() if self.live else self._file_frames()
        for index, frame in enumerate(decoded):
            yield self._frame(frame, index)

    def _frame(self, decoded: VideoFrame, index: int) -> Frame:
        return Frame(
            image=_pixels(decoded),
            index=index,
            time_s=float(decoded.pts * decoded.time_base)
            if decoded.pts is not None
            else index / 30,
            stream=self.name,
            captured_ns=time.monotonic_ns(),
        )

    def _file_frames(self) -> Iterator[VideoFrame]:
        """Everything that decodes; then, where that is less than promised, a TruncatedError."""
        assert self._container is not None  # noqa: S101 (entered)
        count, end_s, broken = 0, 0.0, None
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                break
            except av.EOFError:
                break
            except (av.FFmpegError, OSError) as error:
                broken = _reason(error)
                if not isinstance(error, av.InvalidDataError):
                    break  # the file cannot be read on; a damaged packet only costs itself
                continue
            for frame in frames:
                count += 1
                if frame.pts is not None and frame.time_base is not None:
                    end_s = max(end_s, float(frame.pts * frame.time_base))
                yield frame
        self._check_whole(count, end_s, broken)

    def _check_whole(self, count: int, end_s: float, broken: str | None) -> None:
        if not count:
            raise SourceError(f"{self.spec} holds no frame that can be decoded")
        promised, length_s = self._stream.frames, self._length_s()
        short = promised - count > max(MISSING_FRAMES, MISSING_SHARE * promised)
        early = length_s is not None and length_s - end_s > MISSING_S + MISSING_SHARE * length_s
        if broken or (short if promised else early):
            whole = f" of {promised}" if promised else ""
            cause = f" ({broken})" if broken else ""
            raise TruncatedError(
                f"{self.spec} is damaged or cut short{cause}: {count}{whole} frames were read, up"
                f" to {end_s:.2f} s"
            )

    def _length_s(self) -> float | None:
        """Time of the stream's end on its own clock, as the container promises it."""
        start = float((self._stream.start_time or 0) * (self._stream.time_base or Fraction(1)))
        if self._stream.duration and self._stream.time_base:
            return start + float(self._stream.duration * self._stream.time_base)
        container = self._container
        if container is not None and container.duration:
            return start + container.duration / av.time_base
        return None

    def _live_frames(self) -> Iterator[VideoFrame]:
        """Frames of a live stream, over interruptions, until it stays silent or is closed."""
        heard, pause = time.monotonic(), FIRST_PAUSE_S
        while not self._closed.is_set():
            try:
                if self._container is None:
                    self._open()
                assert self._container is not None  # noqa: S101
                for frame in self._container.decode(self._stream):
                    heard, pause = time.monotonic(), FIRST_PAUSE_S
                    yield frame
                    if self._closed.is_set():
                        return
            except (av.FFmpegError, OSError, SourceError) as error:
                silent = time.monotonic() - heard
                if silent > PATIENCE_S:
                    raise SourceError(
                        f"{self.spec} has been silent for {silent:.0f} s: {_reason(error)}"
                    ) from error
            else:
                if time.monotonic() - heard > PATIENCE_S:
                    return
            self._close()
            self._closed.wait(pause * random.uniform(0.7, 1.3))  # noqa: S311 (not a secret)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _pixels(frame: VideoFrame) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 blue-green-red, upright, in the colour matrix and range that it declares."""
    image = frame.to_ndarray(format="bgr24")
    turns = round(frame.rotation / 90) % 4  # degrees counter-clockwise, from the display matrix
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _reason(error: Exception) -> str:
    if isinstance(error, av.FFmpegError):
        return str(error.strerror or error)
    if isinstance(error, OSError):
        return str(error.strerror or error)
    return str(error)
