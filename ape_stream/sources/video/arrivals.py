"""The frames of one connection as they arrive, each with what is known of its way here."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import av

from ape_stream.channel import Aborted
from ape_stream.sources.video.opening import PLAYLIST_SILENCE_S
from ape_stream.sources.video.pixels import PixelAspect
from ape_stream.sources.video.timestamps import Timestamps, step_s

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction

    from av.packet import Packet
    from av.video.frame import VideoFrame

    from ape_stream.channel import Channel
    from ape_stream.sources.video.faults import Faults
    from ape_stream.sources.video.opening import Opened

__all__ = ["Arrival", "Arrivals", "Seen", "Sender"]

SILENCE_S: Final = 0.5
"""A sender that is silent for longer may have stood still, or have a backlog to send."""

_BAD_PACKETS: Final = 50
"""Errors in a row after which the connection is taken as useless."""
_HELD_BACK: Final = 2
"""Packets that FFmpeg may hold back: one in its demuxer, one in its parser."""
_DELAYED: Final = 64
"""Frames that a decoder may hold, and some more."""


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
    """`time.monotonic()` when it was decoded."""
    waited_s: float
    """How long the network was waited for since the frame before, seconds."""
    awaited: bool
    """Whether that is about its own length: then it is as fresh as the network delivers."""
    late: bool
    """Whether the decoder or FFmpeg may have held it back while the sender was silent."""
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
        # The time alone would not do: a sender that began again uses the same ones.
        key = (packet.pts, crc32(packet))
        if key in self._known:
            return True
        self._packets.append(key)
        return False


class Arrivals:
    """Reads one connection, and puts its frames into a channel.

    Args:
        opened: The connection's container.
        seen: What earlier connections had.
        channel: Where frames go.
        read_timeout_s: Silence after which it counts as lost, seconds.
        faults: Counts damaged packets.
    """

    def __init__(
        self,
        opened: Opened,
        seen: Seen,
        channel: Channel[Arrival],
        read_timeout_s: float,
        faults: Faults,
    ) -> None:
        self._sender = Sender(step_s(opened.stream), opened.is_playlist, opened.may_leap)
        self._opened = opened
        self._seen = seen
        self._faults = faults
        self._seen_pts: set[int | None] = set()
        self._channel = channel
        self._silence_s = max(read_timeout_s, PLAYLIST_SILENCE_S if opened.is_playlist else 0.0)
        self._timestamps = Timestamps(opened.stream)
        self._aspect = PixelAspect(opened.stream)
        # When each packet came, by its time; the decoder hands the time on to the frame.
        self._came_s: dict[int | None, float] = {}
        self._silent_since_s, self._held_back = 0.0, 0
        # `_waited_s` counts since the last frame, `_silent_s` since the last packet of our stream.
        self._waited_s = 0.0
        self._silent_s = 0.0
        self._last_s: float | None = None

    def run(self) -> None:
        """Read until the sender ends.

        Raises:
            Aborted: the channel was left.
            OSError: the connection is lost.
        """
        try:
            for packet in self._packets():
                if packet.size:  # an empty one would end the decoder
                    try:
                        self._put(packet.decode())
                    except av.InvalidDataError:  # it costs only itself
                        self._faults.note_damage()
        finally:
            with suppress(av.FFmpegError, Aborted):  # what the decoder still held
                self._put(self._opened.stream.decode(None))

    def _packets(self) -> Iterator[Packet[Any]]:
        """Packets of the chosen stream."""
        bad = 0
        while bad <= _BAD_PACKETS:
            started_s = time.monotonic()
            try:
                # `demux` blocks in the network; each turn of this loop is one packet of any stream.
                for packet in self._opened.container.demux():
                    waited_s = self._wait(started_s)
                    if packet.stream.index == self._opened.stream.index:
                        self._note(packet, waited_s)
                        yield packet
                        # A packet ends the silence, unless the wait for it alone was too long: then
                        # the check raises.
                        self._silent_s, bad = 0.0 if waited_s < self._silence_s else waited_s, 0
                    self._check_silence()
                    started_s = time.monotonic()
            except IndexError:
                return  # PyAV, at the end, where a stream began in the middle
            except av.ExitError:  # one read took too long: of a playlist, that is nothing yet
                self._wait(started_s)
                self._check_silence()
            except av.InvalidDataError:
                bad += 1
            else:
                return
        raise av.InvalidDataError(0, "it sends nothing that can be read")

    def _wait(self, since_s: float) -> float:
        """Count a wait for the network, seconds."""
        waited_s = time.monotonic() - since_s
        self._waited_s += waited_s
        self._silent_s += waited_s
        return waited_s

    def _check_silence(self) -> None:
        """Raise where there was no video for too long, or nobody wants more."""
        if self._silent_s >= self._silence_s:
            raise TimeoutError(f"no video for {self._silence_s:g} s")
        if self._channel.abort_cause is not None:
            raise Aborted

    def _note(self, packet: Packet[Any], waited_s: float) -> None:
        """Remember when a packet came, and whether it came before.

        The first packets after a silence may have come before it: FFmpeg's demuxer and parser
        each give one out when the next one begins.
        """
        now_s = time.monotonic()
        if waited_s > SILENCE_S:
            self._silent_since_s, self._held_back = now_s - waited_s, _HELD_BACK
        self._came_s[packet.pts] = self._silent_since_s if self._held_back > 0 else now_s
        self._held_back -= 1
        # Packets whose frames never came (damaged ones) must not pile up; dicts keep their order.
        while len(self._came_s) > _DELAYED:
            del self._came_s[next(iter(self._came_s))]
        if self._sender.is_playlist and self._seen.note(packet):
            self._seen_pts.add(packet.pts)

    def _put(self, frames: list[VideoFrame]) -> None:
        for frame in frames:
            given_s = self._timestamps.time_s(frame) if self._opened.has_times else None
            now_s = time.monotonic()
            self._channel.put(
                Arrival(
                    frame,
                    # Asked at once: the next packet may change it.
                    self._aspect.now(),
                    self._sender,
                    given_s,
                    arrived_s=now_s,
                    waited_s=self._waited_s,
                    # Less than half a frame is no wait: a backlog comes as fast as it is decoded.
                    awaited=self._waited_s >= self._length_s(given_s) / 2,
                    late=now_s - self._came_s.get(frame.pts, now_s) > SILENCE_S,
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
        return length_s if 0 < length_s < 1 else nominal_s  # a leap of the clock is no length
