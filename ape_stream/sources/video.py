"""Video files and network streams, decoded by PyAV (FFmpeg).

What bites and how it is met:
  * timestamps are the frames' own (`pts * time_base`), never a counter over a nominal rate;
  * the decoder is flushed at the end, so the last frames are not lost;
  * colour matrix and range are those that the stream declares, a display matrix (phones) turns
    the picture;
  * every open and read has a time limit; a live stream that breaks off is opened again, with
    growing pauses, and its clock goes on;
  * a container is closed by the thread that reads it: FFmpeg does not survive anything else.
"""

from __future__ import annotations

import math
import random
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import av
import numpy as np
from av.stream import Disposition

from ape_stream.errors import SourceError, TruncatedError
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

__all__ = ["VideoSource"]

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SECRET: Final = re.compile(r"(?<=://)[^/@]*@")
_FILE_URL: Final = re.compile(r"https?://.*\.(avi|m4v|mkv|mov|mp4|mpg|webm)(\?.*)?", re.IGNORECASE)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
MISSING_FRAMES, MISSING_SHARE, MISSING_S = 3, 0.02, 0.5
"""How far an undamaged file may stay behind what its own header promises (edit lists, rounding)."""


class VideoSource:
    """One video stream of a file or URL.

    Args:
        spec: a path, or a URL that FFmpeg opens (rtsp, http, tcp, udp, rtmp).
        name: of the stream, written into every frame; None for the spec itself.
        stream: which of the container's video streams, counted from 0.
        live: whether time does not wait; None: a URL is live unless it names a video file.
        open_timeout_s: limit for opening, seconds.
        read_timeout_s: silence after which the connection counts as lost, seconds.
        reconnect_s: how long a lost live stream is tried again before the source fails, seconds;
            0 takes its end for the end.

    Raises:
        SourceError: on entering, it cannot be opened, has no such stream, or holds no video;
            while reading, no frame decodes, or a live stream stays away.
        TruncatedError: after the last frame, the file is damaged or shorter than it says.
    """

    def __init__(
        self,
        spec: str,
        *,
        name: str | None = None,
        stream: int = 0,
        live: bool | None = None,
        open_timeout_s: float = 10.0,
        read_timeout_s: float = 5.0,
        reconnect_s: float = 60.0,
    ) -> None:
        if stream < 0 or reconnect_s < 0 or open_timeout_s <= 0 or read_timeout_s <= 0:
            raise ValueError("stream and reconnect_s are at least 0, time limits are above 0")
        self.spec = spec
        self.name = name or spec
        remote = _URL.match(spec) is not None
        self.live = remote and not _FILE_URL.match(spec) if live is None else live
        self._shown = _SECRET.sub("", spec)
        self._number = stream
        self._limits = (open_timeout_s, read_timeout_s)
        self._reconnect_s = reconnect_s
        self._closed = threading.Event()
        self._reading = threading.Lock()
        self._container: InputContainer | None = None
        self._frame_count: int | None = None

    @property
    def frame_count(self) -> int | None:
        """Frames that the container promises, or None where it does not say."""
        return self._frame_count

    def __enter__(self) -> Self:
        """Open the container and find the stream."""
        container, stream = self._open()
        if not self.live:
            self._frame_count = _promised_frames(container, stream)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Close the container, or have the thread that reads it do so within `read_timeout_s`."""
        self._closed.set()
        if self._reading.acquire(blocking=False):
            self._close()
            self._reading.release()

    def _open(self) -> tuple[InputContainer, VideoStream]:
        path = Path(self.spec)
        if not _URL.match(self.spec) and path.exists() and not path.is_file():
            raise SourceError(f"{self._shown} is not a file")  # a pipe would block for ever
        options = {"rtsp_transport": "tcp"} if self.spec.lower().startswith("rtsp") else {}
        try:
            container = av.open(self.spec, options=options, timeout=self._limits)
        except av.InvalidDataError as error:
            raise SourceError(f"{self._shown} is not a video, or its head is damaged") from error
        except (OSError, av.FFmpegError, ValueError) as error:
            raise SourceError(f"cannot open {self._shown}: {_reason(error)}") from error
        self._container = container
        try:
            stream = self._choose(container)
        except SourceError:
            self._close()
            raise
        # Decoding frames in parallel holds back one frame a thread: not where age counts.
        stream.thread_type = "SLICE" if self.live else "AUTO"
        return container, stream

    def _choose(self, container: InputContainer) -> VideoStream:
        """The wanted video stream; a song's cover picture is none."""
        cover = Disposition.attached_pic
        videos = [s for s in container.streams.video if not s.disposition & cover]
        if not videos:
            raise SourceError(f"{self._shown} holds no video")
        if self._number >= len(videos):
            raise SourceError(
                f"{self._shown} has no video stream {self._number}: choose 0"
                + (f" to {len(videos) - 1}" if len(videos) > 1 else "")
            )
        return videos[self._number]

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame; see `Source`."""
        with self._reading:
            try:
                decoded = self._live_frames() if self.live else self._file_frames()
                for index, (frame, time_s) in enumerate(decoded):
                    captured_ns = time.monotonic_ns()
                    yield Frame(_pixels(frame), index, time_s, self.name, captured_ns)
            finally:
                self._close()

    # -- files --------------------------------------------------------------------------------

    def _opened(self) -> tuple[InputContainer, VideoStream]:
        """The open container, or a new one for a second pass."""
        if self._container is None:
            return self._open()
        return self._container, self._choose(self._container)

    def _file_frames(self) -> Iterator[tuple[VideoFrame, float]]:
        """Everything that decodes; then, where that is less than promised, a TruncatedError."""
        container, stream = self._opened()
        clock, read = _Clock(stream), _Read()
        for packet in read.packets(container):
            for frame in read.frames(packet) if packet.stream.index == stream.index else ():
                yield frame, clock.time_s(frame)
            if self._closed.is_set():
                return
        for frame in read.flushed(stream):
            yield frame, clock.time_s(frame)
        self._check_whole(container, stream, read)

    def _check_whole(self, container: InputContainer, stream: VideoStream, read: _Read) -> None:
        if not read.count:
            raise SourceError(f"{self._shown} holds no frame that can be decoded")
        short = stream.frames - read.count > max(MISSING_FRAMES, MISSING_SHARE * stream.frames)
        length_s = (container.duration or 0) / av.time_base
        # Matroska's duration counts from 0, that of the others from their first timestamp.
        counts_from_0 = "matroska" in container.format.name
        start_s = 0.0 if counts_from_0 else (container.start_time or 0) / av.time_base
        late_s = start_s + length_s - read.end_s
        if read.damage or short or late_s > MISSING_S + MISSING_SHARE * length_s:
            whole = f" of {stream.frames}" if stream.frames else ""
            cause = f" ({read.damage})" if read.damage else ""
            until = f"{read.end_s:.2f} s" + (f" of {length_s:.2f} s" if length_s else "")
            raise TruncatedError(
                f"{self._shown} is damaged or cut short{cause}: {read.count}{whole} frames were"
                f" read, up to {until}"
            )

    # -- live streams -------------------------------------------------------------------------

    def _live_frames(self) -> Iterator[tuple[VideoFrame, float]]:
        """Frames over interruptions, until the stream stays away or is closed."""
        clock: _Clock | None = None
        heard, pause = time.monotonic(), FIRST_PAUSE_S
        while not self._closed.is_set():
            reason = "it ended"
            try:
                container, stream = self._opened()
                clock = clock or _Clock(stream)
                for frame in container.decode(stream):
                    yield frame, clock.time_s(frame, time.monotonic() - heard)
                    heard, pause = time.monotonic(), FIRST_PAUSE_S
                    if self._closed.is_set():
                        return
            except (av.FFmpegError, OSError, SourceError) as error:
                reason = _reason(error)
            self._close()
            self._give_up(clock, time.monotonic() - heard, reason)
            if not self._reconnect_s:
                return
            self._closed.wait(pause * random.uniform(0.7, 1.3))  # noqa: S311 (not a secret)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _give_up(self, clock: _Clock | None, silent_s: float, reason: str) -> None:
        """Raise where a lost stream is not to be tried again."""
        gone = silent_s > self._reconnect_s > 0
        if gone or (clock is None and not self._reconnect_s):
            raise SourceError(f"{self._shown} gave no frame for {silent_s:.0f} s: {reason}")


class _Read:
    """What was read of a file so far, and what was wrong with it."""

    def __init__(self) -> None:
        self.count = 0
        """Frames decoded."""
        self.end_s = -math.inf
        """End of the latest packet of any stream, on the container's clock."""
        self.damage: str | None = None
        """The last thing that could not be read."""

    def packets(self, container: InputContainer) -> Iterator[Packet[Any]]:
        """Packets of all streams: the longest one tells whether the file is whole."""
        try:
            for packet in container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    self.end_s = max(self.end_s, float(end))
                yield packet
        except (av.FFmpegError, OSError) as error:
            self.damage = _reason(error)

    def frames(self, packet: Packet[Any]) -> list[VideoFrame]:
        """What a video packet decodes to; a damaged one costs only itself."""
        try:
            return self._counted(packet.decode())
        except av.EOFError:
            return []
        except (av.FFmpegError, OSError) as error:
            self.damage = _reason(error)
            return []

    def flushed(self, stream: VideoStream) -> list[VideoFrame]:
        """What the decoder still holds after reading broke off."""
        with suppress(av.FFmpegError):  # its end was reached and told before
            return self._counted(stream.decode(None))
        return []

    def _counted(self, frames: list[VideoFrame]) -> list[VideoFrame]:
        self.count += len(frames)
        return frames


class _Clock:
    """Times of frames, seconds, never backwards."""

    def __init__(self, stream: VideoStream) -> None:
        self._base = stream.time_base
        self._step_s = float(1 / stream.average_rate) if stream.average_rate else 1 / 30
        self._last_s: float | None = None
        self._shift_s = 0.0

    def time_s(self, frame: VideoFrame, waited_s: float | None = None) -> float:
        """The frame's own time; where a live stream begins anew, `waited_s` after its last frame.

        A file whose time runs backwards stands still instead; a frame without a time comes one
        nominal step after the last.
        """
        last_s = self._last_s
        if frame.pts is None or self._base is None:
            time_s = 0.0 if last_s is None else last_s + self._step_s
        else:
            time_s = float(frame.pts * self._base) + self._shift_s
        if last_s is not None and time_s < last_s:
            self._shift_s += 0.0 if waited_s is None else last_s + waited_s - time_s
            time_s = last_s + (waited_s or 0.0)
        self._last_s = time_s
        return time_s


def _promised_frames(container: InputContainer, stream: VideoStream) -> int | None:
    if stream.frames:
        return stream.frames
    if stream.average_rate and container.duration:
        return round(container.duration / av.time_base * stream.average_rate) or None
    return None


def _pixels(frame: VideoFrame) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 blue-green-red, upright, in the colour matrix and range that it declares."""
    image = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    turns = round(frame.rotation / 90) % 4  # degrees counter-clockwise, from the display matrix
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None)
    return _SECRET.sub("", str(text or error)).partition("\n")[0]
