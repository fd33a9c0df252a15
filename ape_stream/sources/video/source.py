"""Video files and network streams as a source."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from ape_stream.closing import Closing
from ape_stream.errors import SourceError
from ape_stream.sources.video.live import LiveReader
from ape_stream.sources.video.opening import Address
from ape_stream.sources.video.pixels import Images
from ape_stream.sources.video.whole import WholeReader, frame_count
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from fractions import Fraction

    from ape_stream.sources.video.opening import Opened
    from ape_stream.sources.video.timestamps import TimedFrame

__all__ = ["VideoSource"]

_RETRY_S: Final = 0.5
"""Between two attempts to open what is not there yet."""


class VideoSource(Closing):
    """One video stream of a file or URL.

    Times are the frames' own and rise from frame to frame. Where a sender's clock begins again
    (a file of several recordings, a camera that was away) the stream's clock goes on: a file by
    one frame, a live stream by as long as it was away.

    Args:
        spec: A path, or a URL that FFmpeg opens (rtsp, http, tcp, udp, rtmp).
        name: Of the stream, written into every frame; None for the spec itself.
        stream: Which of the container's video streams, counted from 0.
        live: Whether frames come as they happen, so that old ones may be dropped and an end is an
            interruption. None: what has a length (a file, a playlist with an end) is not live.
        square_pixels: Whether frames whose pixels are not square are stretched until they are,
            so that what is round looks round; False leaves the pixels as they are stored.
        open_timeout_s: Limit for opening, seconds.
        read_timeout_s: Silence after which the connection counts as lost, seconds.
        reconnect_s: How long a lost live stream is tried again before the source fails, seconds;
            0 takes its end for the end.
        wait_s: How long a URL that does not open is tried again at the start, seconds.

    Raises:
        SourceError: on entering, it cannot be opened, has no such stream, or holds no video;
            while reading, no frame decodes, or a live stream stays away.
        TruncatedError: after the last frame, the file is damaged or shorter than it says.
    """

    def __init__(  # noqa: PLR0913 (the options of a run's configuration)
        self,
        spec: str,
        *,
        name: str | None = None,
        stream: int = 0,
        live: bool | None = None,
        square_pixels: bool = True,
        open_timeout_s: float = 10.0,
        read_timeout_s: float = 5.0,
        reconnect_s: float = 60.0,
        wait_s: float = 0.0,
    ) -> None:
        if min(stream, reconnect_s, wait_s) < 0 or min(open_timeout_s, read_timeout_s) <= 0:
            raise ValueError(
                "stream, reconnect_s and wait_s are at least 0, time limits are above 0"
            )
        self.spec = spec
        self.name = name or spec
        self._address = Address(spec, stream, open_timeout_s, read_timeout_s)
        self.live = self._address.looks_live if live is None else live
        # Until it is open, `live` is a guess by the address; what the user says is never changed.
        self._said_live = live
        self._square = square_pixels
        self._read_timeout_s = read_timeout_s
        self._reconnect_s = reconnect_s
        self._wait_s = wait_s
        self._closed = threading.Event()
        # `_reading` is held by the thread that reads: it alone may close the container meanwhile.
        self._reading = threading.Lock()
        self._opened: Opened | None = None
        self._frame_count: int | None = None
        self._rate: Fraction | None = None
        self._wanted: Callable[[int, float], bool] | None = None

    @property
    def frame_count(self) -> int | None:
        """Frames that the container's header promises; None where it does not, or was wrong."""
        return self._frame_count

    @property
    def rate(self) -> Fraction | None:
        """Frames per second that the container states; see `KnowsRate`."""
        return self._rate

    def keep(self, wanted: Callable[[int, float], bool]) -> None:
        """Make images of these frames only; see `SkipsFrames`."""
        self._wanted = wanted

    def files(self) -> list[Path]:
        """The file it reads, none for a URL; see `ReadsFiles`."""
        return [] if self._address.is_url else [Path(self.spec)]

    def check(self) -> None:
        """Refuse a file that cannot be opened; a URL may come later. See `ChecksItself`."""
        if not self._address.is_url:
            self._address.open(live=False).container.close()

    def __enter__(self) -> Self:
        """Open the container and find the stream; `live` is certain from here on."""
        self._opened = self._open_patiently()
        if self._said_live is None:
            self.live = self._opened.is_live
        self._frame_count = None if self.live else frame_count(self._opened)
        self._rate = self._opened.stream.average_rate
        return self

    def _open_patiently(self) -> Opened:
        """Open; where a URL does not open, again for `wait_s`."""
        deadline_s = time.monotonic() + (self._wait_s if self._address.is_url else 0.0)
        while True:
            try:
                return self._address.open(live=self._said_live)
            except SourceError:
                # The wait ends at once when the source is closed meanwhile.
                if time.monotonic() + _RETRY_S > deadline_s or self._closed.wait(_RETRY_S):
                    raise

    def close(self, _: BaseException | None = None, /) -> None:
        """Close the container, or have the thread that reads it do so within `read_timeout_s`."""
        self._closed.set()
        # Never iterated, or its iteration has ended: nobody else closes the container.
        if self._reading.acquire(blocking=False):
            if self._opened is not None:
                self._opened.container.close()
                self._opened = None
            self._reading.release()

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame; see `Source`."""
        with self._reading:
            # The container now belongs to this thread, which closes it on every way out.
            opened, self._opened = self._opened, None
            images = Images(square=self._square)
            for index, timed in enumerate(self._frames(opened)):
                # More frames than promised: better no total than a progress bar over 100 %.
                if self._frame_count is not None and index >= self._frame_count:
                    self._frame_count = None
                if self._wanted is not None and not self._wanted(index, timed.time_s):
                    continue
                yield Frame(
                    images.image(timed.frame, timed.aspect),
                    index,
                    timed.time_s,
                    self.name,
                    int(timed.arrived_s * 1e9),  # captured_ns, nanoseconds
                    pts=timed.frame.pts,
                    time_base=timed.frame.time_base,
                )

    def _frames(self, opened: Opened | None) -> Iterator[TimedFrame]:
        if self.live:
            # A file is not lost at its end: opened again it would begin again, for ever.
            reconnect_s = self._reconnect_s if self._address.is_url else 0.0
            live = LiveReader(self._address, self._read_timeout_s, reconnect_s, self._closed)
            yield from live.frames(opened)
            return
        opened = opened or self._address.open(live=False)
        whole = WholeReader(opened, self._address.shown, self._read_timeout_s)
        try:
            for timed in whole.frames():
                yield timed
                if self._closed.is_set():
                    return
        finally:
            opened.container.close()
