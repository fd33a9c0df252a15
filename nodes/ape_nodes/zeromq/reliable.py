"""Nothing lost, nothing twice, in order: a go-back-N window between one sender and one reader.

Pure book-keeping, no sockets: what to send comes out, what arrived goes in, and the caller says
what time it is. The reader acknowledges a message when it is handed to the user's code; the sender
keeps it until then and sends it again to a reader that lost it, be it by a broken connection or
because it was started anew. docs/wire.md describes the three notes byte by byte.
"""

from __future__ import annotations

import secrets
import struct
from collections import deque
from dataclasses import dataclass
from typing import Final

from ape_stream.errors import WireError

__all__ = ["Ack", "Note", "ReceivingEnd", "SendingEnd", "parse_ack", "parse_note"]

_NOTE: Final = struct.Struct("<4sBB2x8sQQ")  # magic, version, kind, run, sequence, oldest
_ACK: Final = struct.Struct("<4sBB2x8s8sQQ")  # magic, version, flags, session, run, wanted, taken
_NOTE_MAGIC: Final = b"APED"
_ACK_MAGIC: Final = b"APEA"
_VERSION: Final = 1
_HIGHEST: Final = 2**63
"""Of any number in a note: the next one must still fit its 64 bits."""
DATA: Final = 1
PING: Final = 2
_RESEND: Final = 1
PING_EVERY_S: Final = 0.2
NACK_EVERY_S: Final = 0.3
OWNER_SILENT_S: Final = 2.0
"""After this long without a word another reader may take the place of the present one."""


@dataclass(frozen=True, slots=True)
class Note:
    """What goes before each message (and alone as a ping)."""

    is_ping: bool
    run: bytes
    """8 random bytes, drawn at the sender's start."""
    sequence: int
    """Of this message; of the next one in a ping."""
    oldest: int
    """The oldest message that the sender still keeps: where a new reader begins."""

    def pack(self) -> bytes:
        """The 32 bytes on the wire."""
        kind = PING if self.is_ping else DATA
        return _NOTE.pack(_NOTE_MAGIC, _VERSION, kind, self.run, self.sequence, self.oldest)


@dataclass(frozen=True, slots=True)
class Ack:
    """What a reader says back, on every change and every half second."""

    session: bytes
    """8 random bytes, drawn at the reader's start."""
    run: bytes
    """The sender's run it speaks of; zeros before it has heard one."""
    wanted: int
    """The next message it expects; all before it have arrived."""
    taken: int
    """All messages before this one were handed to the user's code."""
    resend: bool = False
    """True: something after `wanted` came, send again from there."""

    def pack(self) -> bytes:
        """The 40 bytes on the wire."""
        flags = _RESEND if self.resend else 0
        return _ACK.pack(
            _ACK_MAGIC, _VERSION, flags, self.session, self.run, self.wanted, self.taken
        )


def parse_note(data: bytes) -> Note:
    """Read a note.

    Raises:
        WireError: the bytes are none.
    """
    if len(data) != _NOTE.size:
        raise WireError(f"a delivery note has {_NOTE.size} bytes, this one {len(data)}")
    magic, version, kind, run, sequence, oldest = _NOTE.unpack(data)
    if (magic, version) != (_NOTE_MAGIC, _VERSION) or kind not in (DATA, PING):
        raise WireError("a delivery note of another format or version")
    if max(sequence, oldest) >= _HIGHEST:
        raise WireError(f"a delivery note with the number {max(sequence, oldest)}")
    return Note(kind == PING, run, sequence, oldest)


def parse_ack(data: bytes) -> Ack:
    """Read an acknowledgement.

    Raises:
        WireError: the bytes are none.
    """
    if len(data) != _ACK.size:
        raise WireError(f"an acknowledgement has {_ACK.size} bytes, this one {len(data)}")
    magic, version, flags, session, run, wanted, taken = _ACK.unpack(data)
    if (magic, version) != (_ACK_MAGIC, _VERSION):
        raise WireError("an acknowledgement of another format or version")
    return Ack(session, run, wanted, taken, resend=bool(flags & _RESEND))


class SendingEnd:
    """The sender's half: keeps what was not acknowledged.

    Args:
        window: How many messages may be unacknowledged; `full` beyond it.
    """

    def __init__(self, window: int) -> None:
        self.run = secrets.token_bytes(8)
        self.window = window
        self.resent = 0
        self.acknowledged = 0
        self._kept: deque[bytes] = deque()  # messages acknowledged .. acknowledged + len
        self._cursor = 0  # the next one to put on the wire
        self._furthest = 0
        self._owner: bytes | None = None
        self._heard_s = float("-inf")
        self._pinged_s = float("-inf")

    @property
    def full(self) -> bool:
        """True while no further message may be added."""
        return len(self._kept) >= self.window

    @property
    def unacknowledged(self) -> int:
        """How many messages nobody has taken yet."""
        return len(self._kept)

    @property
    def has_reader(self) -> bool:
        """True once a reader has spoken."""
        return self._owner is not None

    def add(self, message: bytes) -> None:
        """Keep a message for sending; not while `full`."""
        self._kept.append(message)

    def due(self) -> tuple[bytes, bytes] | None:
        """Note and message to be sent next, or None; call `sent` once it is on its way."""
        place = self._cursor - self.acknowledged
        if self._owner is None or place >= len(self._kept):
            return None
        return Note(False, self.run, self._cursor, self.acknowledged).pack(), self._kept[place]

    def sent(self) -> None:
        """The message of `due` went out."""
        self.resent += self._cursor < self._furthest
        self._cursor += 1
        self._furthest = max(self._furthest, self._cursor)

    def ping(self, now_s: float) -> bytes | None:
        """The ping to be sent now, if one is due: it finds new readers and the loss of a tail."""
        if not self._kept or now_s - self._pinged_s < PING_EVERY_S:
            return None
        self._pinged_s = now_s
        return Note(True, self.run, self._cursor, self.acknowledged).pack()

    def hear(self, ack: Ack, now_s: float) -> bool:
        """Take an acknowledgement; False where it comes from a reader that must wait."""
        if ack.session != self._owner:
            if self._owner is not None and now_s - self._heard_s < OWNER_SILENT_S:
                return False
            self._owner, self._cursor = ack.session, self.acknowledged
        self._heard_s = now_s
        if ack.run == self.run:
            self._release(ack.taken)
            if ack.resend:
                self._cursor = min(max(ack.wanted, self.acknowledged), self._cursor)
        return True

    def _release(self, taken: int) -> None:
        for _ in range(min(taken, self._furthest) - self.acknowledged):
            self._kept.popleft()
            self.acknowledged += 1
        self._cursor = max(self._cursor, self.acknowledged)


@dataclass(slots=True)
class _Run:
    """What a reader knows of one sender."""

    wanted: int
    taken: int
    complained_s: float = float("-inf")
    changed: bool = True


class ReceivingEnd:
    """The reader's half: lets messages through once, in order, and says what it has.

    It remembers the latest `max_runs` senders; an older one that speaks again begins anew.
    """

    def __init__(self, max_runs: int = 64) -> None:
        self.session = secrets.token_bytes(8)
        self.repeated = 0
        self._runs: dict[bytes, _Run] = {}
        self._max_runs = max_runs

    def _known(self, note: Note) -> _Run:
        run = self._runs.pop(note.run, None) or _Run(note.oldest, note.oldest)
        self._runs[note.run] = run  # latest last
        if len(self._runs) > self._max_runs:
            del self._runs[next(iter(self._runs))]
        return run

    def accept(self, note: Note, now_s: float) -> tuple[bool, Ack | None]:
        """Whether this message is the next one, and what to answer at once."""
        run = self._known(note)
        if note.is_ping:
            lost = note.sequence > run.wanted
            return False, self._complain(note.run, run, now_s) if lost else self._ack(note.run, run)
        if note.sequence == run.wanted:
            run.wanted += 1
            return True, None
        if note.sequence < run.wanted:
            self.repeated += 1
            return False, self._ack(note.run, run)
        return False, self._complain(note.run, run, now_s)

    def _complain(self, name: bytes, run: _Run, now_s: float) -> Ack | None:
        if now_s - run.complained_s < NACK_EVERY_S:  # the repetition is on its way
            return None
        run.complained_s = now_s
        return self._ack(name, run, resend=True)

    def taken(self, run: bytes, sequence: int) -> None:
        """The user's code has this message."""
        known = self._runs.get(run)
        if known is not None:
            known.taken, known.changed = max(known.taken, sequence + 1), True

    def acks(self, *, everything: bool) -> list[Ack]:
        """What to tell each sender: changes only, or everything (the heartbeat)."""
        speak = [name for name, run in self._runs.items() if everything or run.changed]
        return [self._ack(name, self._runs[name]) for name in speak]

    def hello(self) -> Ack:
        """What to say to a sender that has not spoken yet."""
        return Ack(self.session, bytes(8), 0, 0)

    def _ack(self, name: bytes, run: _Run, *, resend: bool = False) -> Ack:
        run.changed = False
        return Ack(self.session, name, run.wanted, run.taken, resend)
