"""One connection of a live stream, read by a thread of its own.

FFmpeg blocks while it opens and reads, and a container must be closed by the thread that reads it.
So the thread opens, reads and closes; the source takes what arrived, notices when nothing does,
and can leave at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import av

from ape_stream.channel import Aborted, Channel, Ended
from ape_stream.errors import SourceError
from ape_stream.sources.video.opening import PLAYLIST_SILENCE_S, reason
from ape_stream.sources.video.pixels import PixelAspect
from ape_stream.sources.video.timestamps import Timestamps, step_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from fractions import Fraction

    from av.packet import Packet
    from av.video.frame import VideoFrame

    from ape_stream.sources.video.opening import Opened

__all__ = ["Arrival", "Connection", "Seen", "Sender"]

QUIET_S: Final = 0.15
"""Nothing arrived for this long: the sender has no more for now."""

_LEAVE_S: Final = 0.5
_WAITING: Final = 4
_BAD_PACKETS: Final = 50


@dataclass(frozen=True, slots=True)
class Sender:
    """What the head of a stream says of it."""

    step_s: float | None
    """Nominal time from frame to frame, seconds."""
    is_playlist: bool
    """Whether frames come segment by segment."""
    may_leap: bool
    """Whether its format allows times to begin again."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame that came over the network."""

    frame: VideoFrame
    """As the decoder gave it."""
    aspect: Fraction
    """Width over height of a pixel."""
    sender: Sender
    """Who sent it."""
    given_s: float | None
    """Its time as the sender has it, seconds."""
    arrived_s: float
    """`time.monotonic()` when its last packet came."""
    waited_s: float
    """How long the network was waited for since the frame before, seconds."""
    awaited: bool
    """Whether that is about its own length: then it is as fresh as the network delivers."""
    seen: bool
    """Whether a connection before this one had it already."""


class Seen:
    """Packets of a playlist that were read: after an interruption it still lists them."""

    def __init__(self) -> None:
        self._packets: deque[tuple[int | None, int]] = deque(maxlen=4096)
        self._known: frozenset[tuple[int | None, int]] = frozenset()

    def remember(self) -> None:
        """What was noted so far is known from now on."""
        self._known = frozenset(self._packets)

    def note(self, packet: Packet[Any]) -> bool:
        """Take note of a packet; True where it was known."""
        key = (packet.pts, crc32(packet))
        if key in self._known:
            return True
        self._packets.append(key)
        return False


class Connection:
    """Opens and reads in a thread until the sender ends, is silent, or is left.

    Args:
        opener: Opens the container; called in the thread.
        seen: What earlier connections had.
        read_timeout_s: Silence after which it counts as lost, seconds.
    """

    def __init__(self, opener: Callable[[], Opened], seen: Seen, read_timeout_s: float) -> None:
        self.ended_by: str = "it ended"
        """Why it is over."""
        self.ended_well = False
        """Whether the sender closed it, rather than an error or silence."""
        self._opener = opener
        self._seen = seen
        self._read_timeout_s = read_timeout_s
        self._channel: Channel[Arrival] = Channel(_WAITING)
        self._thread = threading.Thread(target=self._run, name="ape_stream video", daemon=True)
        self._thread.start()

    def arrivals(self, left: threading.Event) -> Iterator[Arrival | None]:
        """What arrives, in order; None each time that nothing came for `QUIET_S`.

        Args:
            left: Set once nobody wants more.
        """
        while not left.is_set():
            try:
                yield self._channel.get(QUIET_S)
            except TimeoutError:
                yield None
            except (Ended, Aborted):
                return

    def leave(self) -> None:
        """Have the thread close the container; it does so at its next packet or time limit."""
        self._channel.abort("left")
        self._thread.join(_LEAVE_S)

    # -- in the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        opened: Opened | None = None
        try:
            opened = self._opener()
            with suppress(Aborted):
                _Reading(opened, self._seen, self._channel, self._read_timeout_s).run()
                self.ended_well = True
        except SourceError as error:
            self.ended_by = str(error)
        except (av.FFmpegError, OSError) as error:
            self.ended_by = reason(error, silent_s=self._read_timeout_s)
        finally:
            if opened is not None:
                opened.container.close()
            self._channel.end()


class _Reading:
    """Puts what arrives into a channel."""

    def __init__(
        self, opened: Opened, seen: Seen, channel: Channel[Arrival], read_timeout_s: float
    ) -> None:
        self._sender = Sender(step_s(opened.stream), opened.is_playlist, opened.may_leap)
        self._opened = opened
        self._seen = seen
        self._seen_pts: set[int | None] = set()
        self._channel = channel
        self._silence_s = max(read_timeout_s, PLAYLIST_SILENCE_S if opened.is_playlist else 0.0)
        self._timestamps = Timestamps(opened.stream)
        self._aspect = PixelAspect(opened.stream)
        self._waited_s = 0.0
        self._silent_s = 0.0
        self._last_s: float | None = None

    def run(self) -> None:
        """Read until the sender ends.

        Raises:
            Aborted: the channel was left.
            OSError: the connection is lost.
        """
        for packet in self._packets():
            if packet.size:  # an empty one would end the decoder
                with suppress(av.InvalidDataError):  # one damaged packet costs only itself
                    self._put(packet.decode())
        with suppress(av.FFmpegError):  # what the decoder still held
            self._put(self._opened.stream.decode(None))

    def _packets(self) -> Iterator[Packet[Any]]:
        """Packets of the chosen stream."""
        bad = 0
        while bad <= _BAD_PACKETS:
            started_s = time.monotonic()
            try:
                for packet in self._opened.container.demux():
                    self._waited(started_s)
                    if packet.stream.index == self._opened.stream.index:
                        self._silent_s, bad = 0.0, 0
                        self._note(packet)
                        yield packet
                    started_s = time.monotonic()
            except IndexError:
                return  # PyAV, at the end, where a stream began in the middle
            except av.ExitError:  # one read took too long: of a playlist, that is nothing yet
                self._waited(started_s)
            except av.InvalidDataError:
                bad += 1
            else:
                return
        raise av.InvalidDataError(0, "it sends nothing that can be read")

    def _waited(self, since_s: float) -> None:
        """Count a wait for the network.

        Raises:
            TimeoutError: it was too long. What FFmpeg hands over when it gives up waiting is what
                it had held back, and old.
        """
        waited_s = time.monotonic() - since_s
        self._waited_s += waited_s
        self._silent_s += waited_s
        if self._silent_s >= self._silence_s:
            raise TimeoutError(f"no video for {self._silence_s:g} s")
        if self._channel.abort_cause is not None:
            raise Aborted

    def _note(self, packet: Packet[Any]) -> None:
        if self._sender.is_playlist and self._seen.note(packet):
            self._seen_pts.add(packet.pts)

    def _put(self, frames: list[VideoFrame]) -> None:
        for frame in frames:
            given_s = self._timestamps.time_s(frame) if self._opened.has_times else None
            self._channel.put(
                Arrival(
                    frame,
                    self._aspect.now(),
                    self._sender,
                    given_s,
                    arrived_s=time.monotonic(),
                    waited_s=self._waited_s,
                    awaited=self._waited_s >= self._length_s(given_s) / 2,
                    seen=frame.pts in self._seen_pts,
                )
            )
            self._waited_s, self._last_s = 0.0, given_s

    def _length_s(self, given_s: float | None) -> float:
        """Time since the frame before by the sender's clock."""
        nominal_s = self._sender.step_s or 1 / 30
        if given_s is None or self._last_s is None:
            return nominal_s
        length_s = given_s - self._last_s
        return length_s if 0 < length_s < 1 else nominal_s
