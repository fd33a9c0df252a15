"""Reads what has an end: every frame that decodes, then a word on what was missing."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import av

from ape_stream.errors import SourceError, TruncatedError
from ape_stream.sources.clock import StreamClock
from ape_stream.sources.video.opening import PLAYLISTS, reason
from ape_stream.sources.video.pixels import PixelAspect
from ape_stream.sources.video.timestamps import TimedFrame, Timestamps, step_s

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.packet import Packet
    from av.video.frame import VideoFrame

    from ape_stream.sources.video.opening import Opened

__all__ = ["WholeReader", "frame_count"]

MISSING_FRAMES, MISSING_SHARE, MISSING_S = 3, 0.02, 0.5
"""How far an undamaged file may stay behind what its own header promises (rounding)."""

_ROUGH_SHARE: Final = 0.1
"""The same for playlists, which may give whole seconds a segment."""

_MEASURED: Final = frozenset(("mpegts", "mpeg", "ogg"))
"""Formats whose length is no promise: FFmpeg takes it from the times that it finds."""

_JITTER_S, _LEAP_S = 0.1, 10.0
"""From where on a time that turns back or leaps is a new time line (ffmpeg's own limits)."""


def frame_count(opened: Opened) -> int | None:
    """Frames that the header promises, without those that an edit list hides or that are empty.

    None where only a length is known: a rate is no promise.
    """
    promised, entries = opened.stream.frames, opened.stream.index_entries
    if opened.format == "avi" and promised != len(entries):
        return None  # the header counts ticks of its clock, or the index is lost
    if promised:
        promised -= sum(entry.is_discard or not entry.size for entry in entries)
    return promised or None


def _clock(opened: Opened) -> StreamClock:
    """A clock that goes on over time lines that begin again."""
    leap_s = _LEAP_S if opened.may_leap else math.inf
    return StreamClock(step_s=step_s(opened.stream), jitter_s=_JITTER_S, leap_s=leap_s)


class WholeReader:
    """One pass over a container.

    Args:
        opened: What is read.
        shown: Its name in messages.
        read_timeout_s: Limit for each read, seconds.
    """

    def __init__(self, opened: Opened, shown: str, read_timeout_s: float) -> None:
        self._opened = opened
        self._shown = shown
        self._read_timeout_s = read_timeout_s
        self._promised = frame_count(opened)
        self._count = 0
        # End of the latest packet of any stream, on the container's clock.
        self._end_s = -math.inf
        self._damage: str | None = None

    def frames(self) -> Iterator[TimedFrame]:
        """Frames in the order in which they are shown.

        Raises:
            SourceError: after the end, nothing could be decoded.
            TruncatedError: after the last frame, it is damaged or shorter than it says.
        """
        stream = self._opened.stream
        timestamps, aspect = Timestamps(stream), PixelAspect(stream)
        clock = _clock(self._opened)
        for frame in self._decoded():
            self._count += 1
            time_s = clock.time_s(timestamps.time_s(frame))
            yield TimedFrame(frame, aspect.now(), time_s, time.monotonic())
        # After the last frame, never before: what could be read is delivered first.
        self._check_whole()

    def _decoded(self) -> Iterator[VideoFrame]:
        stream = self._opened.stream
        for packet in self._packets():
            if packet.stream.index != stream.index:
                continue
            if packet.size:  # an empty one ("as before" in AVI) would end the decoder
                yield from self._frames_of(packet)
        with suppress(av.FFmpegError):  # what the decoder still held at the end
            yield from stream.decode(None)

    def _packets(self) -> Iterator[Packet[Any]]:
        """Packets of all streams: the longest one shows whether the file is whole."""
        try:
            for packet in self._opened.container.demux():
                if not packet.size and packet.pts is None and packet.dts is None:
                    continue  # PyAV's own at the end, or one that says nothing
                stamp = packet.dts if packet.pts is None else packet.pts
                if stamp is not None and packet.time_base is not None:
                    end = (stamp + (packet.duration or 0)) * packet.time_base
                    self._end_s = max(self._end_s, float(end))
                yield packet
        except IndexError:
            pass  # PyAV, at the end, where a stream began in the middle
        except (av.FFmpegError, OSError) as error:
            self._damage = reason(error, silent_s=self._read_timeout_s)

    def _frames_of(self, packet: Packet[Any]) -> list[VideoFrame]:
        """What a video packet decodes to; a damaged one costs only itself."""
        try:
            return packet.decode()
        except av.EOFError:  # the decoder was flushed before
            return []
        except (av.FFmpegError, OSError) as error:
            self._damage = reason(error)
            return []

    def _check_whole(self) -> None:
        if not self._count:
            raise SourceError(f"{self._shown} holds no frame that can be decoded")
        of_all, until = self._missing_frames(), self._missing_time()
        if self._damage or of_all or until:
            cause = f" ({self._damage})" if self._damage else ""
            raise TruncatedError(
                f"{self._shown} is damaged or cut short{cause}: {self._count}{of_all} frames were"
                f" read{until}"
            )

    def _missing_frames(self) -> str:
        promised = self._promised or 0
        short = promised - self._count > max(MISSING_FRAMES, MISSING_SHARE * promised)
        return f" of {promised}" if short else ""

    def _missing_time(self) -> str:
        container = self._opened.container
        if not container.duration or not math.isfinite(self._end_s):
            return ""
        if self._opened.format in _MEASURED or not self._opened.has_times:
            return ""
        length_s = container.duration / av.time_base
        if self._opened.format == "avi":  # FFmpeg shortens the duration of what is cut short
            stream = self._opened.stream
            length_s = float(stream.frames * (stream.time_base or 0))
        # Matroska's duration counts from 0, that of the others from their first timestamp.
        counts_from_0 = "matroska" in self._opened.format
        start_s = 0.0 if counts_from_0 else (container.start_time or 0) / av.time_base
        read_s = max(0.0, self._end_s - start_s)
        share = _ROUGH_SHARE if self._opened.format in PLAYLISTS else MISSING_SHARE
        short = length_s - read_s > MISSING_S + share * length_s
        return f", {read_s:.2f} s of {length_s:.2f} s" if short else ""
