"""Opens a container within a time limit, chooses its stream, and finds out whether it ends."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import av
from av.stream import Disposition

from ape_stream.errors import SourceError, reason_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["Address", "Opened", "reason", "without_secrets"]

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# A user and a password, which may hold an @, and in spite of RFC 3986 a slash (`host:80/` is none).
_LOGIN: Final = re.compile(r"(?<=://)(?:[^/?#\s]*|[^/?#\s:@]*:(?!\d+/)[^\s?#]*)@")
# Many cameras want a password or a token there.
_QUERY: Final = re.compile(r"(://[^\s?'\"]*\?)[^\s'\"]+")
_PLAYLIST: Final = re.compile(r"\.(m3u8?|mpd)\b", re.IGNORECASE)
# A guess for before it opens; `_has_end` decides afterwards.
_FILE_URL: Final = re.compile(r"https?://.*\.(avi|m4v|mkv|mov|mp4|mpg|webm)(\?.*)?", re.IGNORECASE)

PLAYLISTS: Final = frozenset(("hls", "dash"))
"""Formats (of FFmpeg) whose input is a list of segments."""

PLAYLIST_SILENCE_S: Final = 20.0
"""A playlist is silent from segment to segment, and those last up to 10 s."""

UNTIMED: Final = frozenset(("mpjpeg",))
"""Formats whose times are counted by FFmpeg at a nominal rate."""

_NO_TIMESTAMPS, _TS_DISCONT, _GENERATE_PTS = 0x80, 0x200, 1
"""AVFMT_NOTIMESTAMPS, AVFMT_TS_DISCONT and AVFMT_FLAG_GENPTS (libavformat/avformat.h)."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A container and the stream that is read of it."""

    container: InputContainer
    stream: VideoStream
    is_live: bool
    """Whether frames come as they happen."""

    @property
    def format(self) -> str:
        """FFmpeg's name of the container's format."""
        return self.container.format.name

    @property
    def is_playlist(self) -> bool:
        """Whether frames come segment by segment."""
        return self.format in PLAYLISTS

    @property
    def has_times(self) -> bool:
        """Whether frames carry times of the sender's."""
        return self.format not in UNTIMED and not self._has_flag(_NO_TIMESTAMPS)

    @property
    def may_leap(self) -> bool:
        """Whether the format allows times to begin again."""
        return self._has_flag(_TS_DISCONT)

    def _has_flag(self, flag: int) -> bool:
        return bool(self.container.format.flags & flag)


class Address:
    """What a user named: a file or a URL, and which of its video streams.

    Args:
        spec: A path, or a URL that FFmpeg opens.
        stream: Which of the container's video streams, counted from 0.
        open_timeout_s: Limit for opening, seconds.
        read_timeout_s: Limit for each read, seconds.
    """

    def __init__(
        self, spec: str, stream: int, open_timeout_s: float, read_timeout_s: float
    ) -> None:
        self.shown = without_secrets(spec)
        """The address for messages."""
        self.is_url = _URL.match(spec) is not None
        self.is_web = spec.lower().startswith(("http://", "https://"))
        self.spec = spec
        self._number = stream
        if _PLAYLIST.search(spec):  # to break off a wait would bring out a frame that FFmpeg holds
            read_timeout_s = max(read_timeout_s, PLAYLIST_SILENCE_S)
        self._limits = (open_timeout_s, read_timeout_s)

    @property
    def looks_live(self) -> bool:
        """Whether it seems to have no end, before it is opened."""
        return self.is_url and not _FILE_URL.match(self.spec)

    def open(self, *, live: bool | None, again: bool = False) -> Opened:
        """Open it.

        Args:
            live: Whether frames come as they happen; None: judge by what is found.
            again: Whether this goes on with a live stream that was lost.

        Raises:
            SourceError: it cannot be opened, has no such stream, or holds no video.
        """
        if not self.is_url and Path(self.spec).exists() and not Path(self.spec).is_file():
            # A pipe would block for ever.
            raise SourceError(f"{self.shown} is not a file: give a file or a URL")
        if not self.is_url and Path(self.spec).exists() and not Path(self.spec).stat().st_size:
            raise SourceError(f"{self.shown} is empty: copy it again, or name another file")
        container = self._container(again=again)
        stream = self._choose(container)
        if live is None:
            remote = self.is_url or container.format.name in PLAYLISTS
            live = remote and not _has_end(container)
        # Decoding frames in parallel holds back one frame a thread: not where age counts.
        stream.thread_type = "SLICE" if live else "AUTO"
        return Opened(container, stream, live)

    def _container(self, *, again: bool) -> InputContainer:
        started = time.monotonic()
        try:
            container = av.open(self.spec, options=self._options(again=again), timeout=self._limits)
        except av.InvalidDataError as error:
            silent_s = time.monotonic() - started
            # FFmpeg calls it invalid data, too, where the time limit broke off its probing.
            if self.is_url and silent_s >= self._limits[0]:
                raise SourceError(f"{self.shown} sent no video for {silent_s:.0f} s") from error
            what = "sent no video, or one whose" if self.is_url else "is not a video, or its"
            raise SourceError(f"{self.shown} {what} head is damaged") from error
        except (OSError, av.FFmpegError, ValueError) as error:
            why = reason(error, silent_s=self._limits[0])
            raise SourceError(f"cannot open {self.shown}: {why}") from error
        # PyAV lets FFmpeg make up missing presentation times; with B-frames they are wrong.
        container.flags &= ~_GENERATE_PTS
        return container

    def _options(self, *, again: bool) -> dict[str, str]:
        """FFmpeg's own options (libavformat)."""
        if not self.is_url:
            return {}
        if self.is_web:
            # A server that closes a file's connection while the model works is asked for the rest.
            options = {"reconnect": "1", "reconnect_delay_max": "2"}
            # What a live playlist still lists was seen before the interruption.
            return options | ({"live_start_index": "-1"} if again else {})
        # Twenty frames to find out the rate would be twenty old frames at the start.
        return {"rtsp_transport": "tcp", "fpsprobesize": "0"}

    def _choose(self, container: InputContainer) -> VideoStream:
        """The wanted video stream; the cover image of a song is none."""
        cover = Disposition.attached_pic
        videos = [s for s in container.streams.video if not s.disposition & cover]
        if self._number < len(videos):
            if videos[self._number].codec_context is not None:
                return videos[self._number]
            container.close()
            raise SourceError(f"{self.shown} holds video of a codec that cannot be decoded here")
        container.close()
        if not videos:
            raise SourceError(f"{self.shown} holds no video")
        raise SourceError(
            f"{self.shown} has no video stream {self._number}: choose 0"
            + (f" to {len(videos) - 1}" if len(videos) > 1 else "")
        )


def _has_end(container: InputContainer) -> bool:
    """Whether there is a last frame: its length is known, in time or in bytes.

    A playlist's size is no length, and some cameras send a made-up size for multipart JPEG.
    """
    if container.duration is not None and container.duration > 0:
        return True
    return container.format.name not in PLAYLISTS | UNTIMED and container.size > 0


def reason(error: Exception, *, silent_s: float | None = None) -> str:
    """What an error of FFmpeg means, in one line without passwords.

    Args:
        error: The error.
        silent_s: The time limit that was in force, seconds; None where there was none.
    """
    if isinstance(error, av.ExitError | av.TimeoutError) and silent_s is not None:
        return f"no data for {silent_s:g} s"
    return without_secrets(reason_of(error)).partition("\n")[0]


def without_secrets(text: str) -> str:
    """The text with its URLs without user, password and the values of their queries."""
    return _QUERY.sub(r"\1...", _LOGIN.sub("", text))
