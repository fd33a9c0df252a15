"""Reliable delivery: every message once, in order, over restarts of the reader.

A go-back-N window between one sender and one reader, as pure state without sockets: the caller
passes in what arrived and the present time, and sends what comes out. The reader acknowledges a
message when the user's code has received it. Until then the sender keeps it, and sends it again to
a reader that lost it because a connection broke or its process was restarted. docs/wire.md
describes both headers byte by byte.
"""

from __future__ import annotations

import secrets
import struct
from collections import deque
from dataclasses import dataclass
from typing import Final

from ape_stream.errors import WireError

__all__ = ["Ack", "DeliveryHeader", "ReceiveWindow", "SendWindow", "parse_ack", "parse_header"]

_HEADER: Final = struct.Struct("<4sBB2x8sQQ")  # magic, version, kind, run, sequence, oldest
_ACK: Final = struct.Struct("<4sBB2x8s8sQQ")  # magic, version, flags, session, run, expected, done
_HEADER_MAGIC: Final = b"APED"
_ACK_MAGIC: Final = b"APEA"
_VERSION: Final = 1
_NUMBER_LIMIT: Final = 2**63
"""Numbers stay below it, so that the number after any of them still fits 64 bits."""
DATA: Final = 1
PING: Final = 2
_RESEND: Final = 1
PING_EVERY_S: Final = 0.2
"""Between two pings while results are not acknowledged."""
RESEND_EVERY_S: Final = 0.3
"""Between two requests to send again."""
OWNER_SILENT_S: Final = 2.0
"""After this much silence another reader may replace the present one."""


@dataclass(frozen=True, slots=True)
class DeliveryHeader:
    """Precedes each message; alone it is a ping."""

    is_ping: bool
    run: bytes
    """8 random bytes, drawn when the sender starts."""
    sequence: int
    """Number of this message; in a ping, of the next one."""
    oldest: int
    """The oldest message that the sender still keeps: a new reader begins there."""

    def pack(self) -> bytes:
        """The 32 bytes on the wire."""
        kind = PING if self.is_ping else DATA
        return _HEADER.pack(_HEADER_MAGIC, _VERSION, kind, self.run, self.sequence, self.oldest)


@dataclass(frozen=True, slots=True)
class Ack:
    """An acknowledgement: sent on every change and every half second."""

    session: bytes
    """8 random bytes, drawn when the reader starts."""
    run: bytes
    """The sender's run that is acknowledged; zeros before the reader knows one."""
    expected: int
    """The next message that the reader expects; all before it have arrived."""
    delivered: int
    """All messages before this one were received by the user's code."""
    resend: bool = False
    """True: a message after `expected` arrived; send again from `expected`."""

    def pack(self) -> bytes:
        """The 40 bytes on the wire."""
        flags = _RESEND if self.resend else 0
        return _ACK.pack(
            _ACK_MAGIC, _VERSION, flags, self.session, self.run, self.expected, self.delivered
        )


def parse_header(data: bytes) -> DeliveryHeader:
    """Read a delivery header.

    Raises:
        WireError: the bytes are something else.
    """
    if len(data) != _HEADER.size:
        raise WireError(f"a delivery header has {_HEADER.size} bytes, this one {len(data)}")
    magic, version, kind, run, sequence, oldest = _HEADER.unpack(data)
    if (magic, version) != (_HEADER_MAGIC, _VERSION) or kind not in (DATA, PING):
        raise WireError("a delivery header of another format or version")
    if max(sequence, oldest) >= _NUMBER_LIMIT:
        raise WireError(f"a delivery header with the number {max(sequence, oldest)}")
    return DeliveryHeader(kind == PING, run, sequence, oldest)


def parse_ack(data: bytes) -> Ack:
    """Read an acknowledgement.

    Raises:
        WireError: the bytes are something else.
    """
    if len(data) != _ACK.size:
        raise WireError(f"an acknowledgement has {_ACK.size} bytes, this one {len(data)}")
    magic, version, flags, session, run, expected, delivered = _ACK.unpack(data)
    if (magic, version) != (_ACK_MAGIC, _VERSION):
        raise WireError("an acknowledgement of another format or version")
    return Ack(session, run, expected, delivered, resend=bool(flags & _RESEND))


class SendWindow:
    """The sender's half: keeps what was not acknowledged.

    Args:
        size: How many messages may be unacknowledged; then it is `full`.
    """

    def __init__(self, size: int) -> None:
        self.run = secrets.token_bytes(8)
        self.size = size
        self.resent = 0
        self.acknowledged = 0
        self._kept: deque[bytes] = deque()  # messages acknowledged .. acknowledged + len
        self._next = 0  # the number to be sent next
        self._sent = 0  # all numbers before it were sent at least once
        # Numbers: acknowledged <= _next <= _sent <= acknowledged + len(_kept). A reader that lost
        # messages moves _next back; _sent stays, so what lies before it is sent again.
        self._owner: bytes | None = None  # the session of the present reader
        self._owner_heard_s = float("-inf")
        self._pinged_s = float("-inf")

    @property
    def full(self) -> bool:
        """True while no further message may be added."""
        return len(self._kept) >= self.size

    @property
    def unacknowledged(self) -> int:
        """How many messages no reader has received yet."""
        return len(self._kept)

    def add(self, message: bytes) -> None:
        """Keep a message for sending; not while `full`."""
        self._kept.append(message)

    def due(self) -> tuple[bytes, bytes] | None:
        """Header and message to send next, or None; call `mark_sent` once they are sent."""
        # Before a reader has answered, nothing is sent: it would fill ZeroMQ's own queue, from
        # where a dying connection takes it away uncounted.
        position = self._next - self.acknowledged
        if self._owner is None or position >= len(self._kept):
            return None
        header = DeliveryHeader(False, self.run, self._next, self.acknowledged)
        return header.pack(), self._kept[position]

    def mark_sent(self) -> None:
        """Record that the message of `due` was sent."""
        self.resent += self._next < self._sent
        self._next += 1
        self._sent = max(self._sent, self._next)

    def ping(self, now_s: float) -> bytes | None:
        """The ping to send now, if one is due: new readers answer it, and it reveals a lost end."""
        if not self._kept or now_s - self._pinged_s < PING_EVERY_S:
            return None
        self._pinged_s = now_s
        return DeliveryHeader(True, self.run, self._next, self.acknowledged).pack()

    def on_ack(self, ack: Ack, now_s: float) -> bool:
        """Take an acknowledgement; False where it comes from a second reader, which must wait."""
        if ack.session != self._owner:
            if self._owner is not None and now_s - self._owner_heard_s < OWNER_SILENT_S:
                return False
            # A new session has received nothing yet: it begins with the oldest message kept.
            self._owner, self._next = ack.session, self.acknowledged
        self._owner_heard_s = now_s
        if ack.run == self.run:  # not that of a sender which had this address before
            self._release(ack.delivered)
            if ack.resend:  # go back to the gap, but never before what was acknowledged
                self._next = min(max(ack.expected, self.acknowledged), self._next)
        return True

    def _release(self, delivered: int) -> None:
        """Forget the messages before `delivered`, but none that was never sent."""
        # A hostile or confused reader may acknowledge what was never sent: that frees nothing.
        for _ in range(min(delivered, self._sent) - self.acknowledged):
            self._kept.popleft()
            self.acknowledged += 1
        self._next = max(self._next, self.acknowledged)


@dataclass(slots=True)
class _Progress:
    """What a reader has of one sender's run."""

    expected: int
    delivered: int
    resend_requested_s: float = float("-inf")
    changed: bool = True


class ReceiveWindow:
    """The reader's half: lets each message through once, in order, and acknowledges it.

    It remembers the latest `max_runs` senders; an older one that sends again starts over.
    """

    def __init__(self, max_runs: int = 64) -> None:
        self.session = secrets.token_bytes(8)
        self.duplicates = 0
        self._runs: dict[bytes, _Progress] = {}
        self._max_runs = max_runs

    def _progress(self, header: DeliveryHeader) -> _Progress:
        # An unknown run begins with what its sender still keeps; all before was acknowledged.
        progress = self._runs.pop(header.run, None) or _Progress(header.oldest, header.oldest)
        self._runs[header.run] = progress  # the latest is last
        if len(self._runs) > self._max_runs:
            del self._runs[next(iter(self._runs))]
        return progress

    def accept(self, header: DeliveryHeader, now_s: float) -> tuple[bool, Ack | None]:
        """Whether this message is the next one, and what to answer at once."""
        progress = self._progress(header)
        if header.is_ping:  # its number is the next one: a higher one means that the end was lost
            lost = header.sequence > progress.expected
            if lost:
                return False, self.request_resend(header.run, now_s)
            return False, self._ack(header.run)
        if header.sequence == progress.expected:
            progress.expected += 1
            return True, None  # acknowledged once the user's code has it
        if header.sequence < progress.expected:  # resent because the acknowledgement was lost
            self.duplicates += 1
            return False, self._ack(header.run)
        # A gap: go-back-N keeps nothing that is out of order, the sender repeats it all.
        return False, self.request_resend(header.run, now_s)

    def request_resend(self, run: bytes, now_s: float) -> Ack | None:
        """Ask for everything from the expected message on; None while an answer may be coming."""
        progress = self._runs[run]
        if now_s - progress.resend_requested_s < RESEND_EVERY_S:
            return None
        progress.resend_requested_s = now_s
        return self._ack(run, resend=True)

    def delivered(self, run: bytes, sequence: int) -> None:
        """Record that the user's code has received this message."""
        progress = self._runs.get(run)
        if progress is not None:  # None: forgotten, because more senders came since
            progress.delivered, progress.changed = max(progress.delivered, sequence + 1), True

    def acks(self, *, everything: bool) -> list[Ack]:
        """Acknowledgements to send: of what changed, or of everything (the heartbeat)."""
        runs = [run for run, progress in self._runs.items() if everything or progress.changed]
        return [self._ack(run) for run in runs]

    def announce(self) -> Ack:
        """What to send to a sender whose run is not known yet."""
        return Ack(self.session, bytes(8), 0, 0)

    def _ack(self, run: bytes, *, resend: bool = False) -> Ack:
        progress = self._runs[run]
        progress.changed = False
        return Ack(self.session, run, progress.expected, progress.delivered, resend)
