"""The receiving side: one thread owns the socket, so a slow user never makes old news.

`latest` keeps the newest message of each stream; `every` keeps a few and then lets ZeroMQ, and so
the sender, wait. Sequence numbers are checked here: every hole is counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Final

import zmq

from ape_nodes.zeromq.endpoint import RECEIVING, Endpoint
from ape_nodes.zeromq.reliable import ReceivingEnd, parse_note
from ape_nodes.zeromq.socket import Link, Security, open_link, worth_telling
from ape_stream.errors import SourceError, WireError
from ape_stream.wire import peek
from ape_stream.wire.header import MAX_MESSAGE_BYTES

__all__ = ["Inlet", "InletStats", "open_inlet"]

HEARTBEAT_S: Final = 0.5
_SLICE_MS: Final = 10
_QUEUE: Final = 8
_MAX_PEERS: Final = 256  # more than the runs that `ReceivingEnd` remembers
_MAX_RUNS: Final = 1024  # whose sequence numbers are followed, and streams that may wait
_TOPIC_BYTES: Final = 1 << 16
_log = logging.getLogger("ape_stream")


@dataclass(slots=True)
class InletStats:
    """What a reader has seen."""

    received: int = 0
    """Whole messages that arrived."""
    missed: int = 0
    """Holes in the sequence numbers: sent, but never arrived."""
    before: int = 0
    """Sent by a run before its first message that arrived: to nobody, to another reader, or lost
    with one that died."""
    skipped: int = 0
    """Arrived, but overtaken by a newer one before the user asked (mode latest)."""
    repeated: int = 0
    """Arrived twice and were left out (mode every)."""
    restarts: int = 0
    """How often a new run sent on a stream that was known already, or a known one counted anew."""
    refused: int = 0
    """Messages that are none of ours, of another version, or cannot be decoded."""

    def as_dict(self) -> dict[str, int]:
        """The numbers by name."""
        return asdict(self)


@dataclass(slots=True)
class _Arrival:
    stream: str
    data: bytes
    run: bytes
    sequence: int


class Inlet:
    """Receives in a thread of its own; `get` and `close` may be called from any thread.

    Args:
        link: A SUB, PULL, DEALER or ROUTER socket.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.stats = InletStats()
        self._latest = link.endpoint.delivery == "latest"
        self._ready: deque[_Arrival] = deque()
        self._bell = threading.Condition()
        self._closing = threading.Event()
        self._taken: deque[tuple[bytes, int]] = deque()
        self._end = ReceivingEnd() if link.endpoint.kind in ("dealer", "router") else None
        self._peers: dict[bytes, bytes] = {}
        self._spoke_s = 0.0
        self._last: dict[tuple[str, str], int] = {}  # by stream and run, latest heard last
        self._streams: dict[str, int] = {}  # how many of its runs are followed
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"ape_nodes {link.endpoint}")
        self._thread.daemon = True
        self._thread.start()

    # -- the user's side ------------------------------------------------------------------

    def get(self, timeout_s: float) -> tuple[str, bytes] | None:
        """Stream and message that is next, or None when none came in time or it was closed.

        Raises:
            SourceError: the socket failed.
        """
        with self._bell:
            self._bell.wait_for(self._has_news, timeout_s)
            if self._failure is not None:
                raise SourceError(f"{self.link.endpoint}: {self._failure}") from self._failure
            if not self._ready or self._closing.is_set():
                return None
            arrival = self._ready.popleft()
            if self._end is not None:
                self._taken.append((arrival.run, arrival.sequence))
            return arrival.stream, arrival.data

    def refuse(self, error: WireError) -> None:
        """Count a message that makes no sense, and tell now and then."""
        with self._bell:
            self.stats.refused += 1
            count = self.stats.refused
        if worth_telling(count):
            _log.warning("%s: message refused (%d so far): %s", self.link.endpoint, count, error)

    def _has_news(self) -> bool:
        return bool(self._ready or self._closing.is_set() or self._failure is not None)

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closing.is_set()

    def close(self) -> None:
        """Stop the thread and close the socket."""
        self._closing.set()
        with self._bell:
            self._bell.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._work()
            self._acknowledge(everything=True)  # what was handed over last
        except Exception as error:  # noqa: BLE001 (told to whoever asks next)
            with self._bell:
                self._failure = error
                self._bell.notify_all()
        finally:
            self.link.close(0.2 if self._end is not None else 0.0)

    def _work(self) -> None:
        if self._has_room():
            if self.link.socket.poll(_SLICE_MS):
                self._receive(self.link.socket.recv_multipart())
        else:
            time.sleep(_SLICE_MS / 1000)
        if self._end is not None:
            now_s = time.monotonic()
            beat = now_s - self._spoke_s > HEARTBEAT_S
            self._spoke_s = now_s if beat else self._spoke_s
            self._acknowledge(everything=beat)

    def _has_room(self) -> bool:
        return self._latest or len(self._ready) < _QUEUE

    def _receive(self, parts: list[bytes]) -> None:
        try:
            if self._end is None:
                self._arrive(parts[-1], b"", 0)
            else:
                self._receive_noted(self._end, parts)
        except WireError as error:
            self.refuse(error)

    def _receive_noted(self, end: ReceivingEnd, parts: list[bytes]) -> None:
        peer = parts.pop(0) if self.link.endpoint.kind == "router" else b""
        if len(parts) not in (1, 2):
            raise WireError(f"a delivery has one or two parts, this one {len(parts)}")
        note = parse_note(parts[0])
        if note.is_ping != (len(parts) == 1):
            raise WireError("a delivery note without its message")
        self._peers.pop(note.run, None)
        self._peers[note.run] = peer  # latest last
        if len(self._peers) > _MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        fits, answer = end.accept(note, time.monotonic())
        self.stats.repeated = end.repeated
        if answer is not None:
            self._say(answer.run, answer.pack())
        if fits:
            try:
                self._arrive(parts[1], note.run, note.sequence)
            except WireError:
                end.taken(note.run, note.sequence)  # sending it again would not mend it
                raise

    def _arrive(self, message: bytes, run: bytes, sequence: int) -> None:
        topic, _, data = message.partition(b"\0")
        try:
            stream = topic.decode()
        except UnicodeDecodeError as error:
            raise WireError("the topic is not UTF-8") from error
        _, envelope = peek(data)
        self._count(stream, envelope.run, envelope.sequence)
        with self._bell:
            if self._latest:
                self._overtake(stream)
            self._ready.append(_Arrival(stream, data, run, sequence))
            self._bell.notify_all()

    def _overtake(self, stream: str) -> None:
        old = [arrival for arrival in self._ready if arrival.stream == stream]
        if not old and len(self._ready) >= _MAX_RUNS:
            old = [self._ready[0]]
        for arrival in old:
            self._ready.remove(arrival)
            self.stats.skipped += 1

    def _count(self, stream: str, run: str, sequence: int) -> None:
        """Follow each run by itself: two senders may take turns on one stream."""
        self.stats.received += 1
        last = self._last.pop((stream, run), None)
        if last is None:
            self.stats.before += sequence
            self.stats.restarts += stream in self._streams
            self._streams[stream] = self._streams.get(stream, 0) + 1
        elif sequence <= last:  # a sender that counts anew under its old name
            self.stats.restarts += 1
        else:
            self.stats.missed += sequence - last - 1
        self._last[stream, run] = sequence
        if len(self._last) > _MAX_RUNS:
            self._forget(next(iter(self._last)))

    def _forget(self, oldest: tuple[str, str]) -> None:
        del self._last[oldest]
        self._streams[oldest[0]] -= 1
        if not self._streams[oldest[0]]:
            del self._streams[oldest[0]]

    def _acknowledge(self, *, everything: bool) -> None:
        if self._end is None:
            return
        while self._taken:
            self._end.taken(*self._taken.popleft())
        acks = self._end.acks(everything=everything)
        for ack in acks:
            self._say(ack.run, ack.pack())
        if everything and not acks and self.link.endpoint.kind == "dealer":
            self._say(b"", self._end.hello().pack())

    def _say(self, run: bytes, ack: bytes) -> None:
        parts = [ack]
        if self.link.endpoint.kind == "router":
            parts = [self._peers[run], ack]
        try:
            self.link.socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise


def open_inlet(endpoint: str, security: Security, streams: tuple[str, ...] = ()) -> Inlet:
    """Open the receiving side of an endpoint string.

    Args:
        endpoint: Which socket, where.
        security: Keys, or the leave to go without.
        streams: Names of the streams to subscribe to (sub only); none means all.

    Raises:
        ConfigError: the endpoint cannot be used, or is public and unguarded.
    """
    parsed = Endpoint.parse(endpoint, RECEIVING)
    options: dict[int, int | bytes] = {zmq.MAXMSGSIZE: MAX_MESSAGE_BYTES + _TOPIC_BYTES}
    if parsed.kind == "sub":
        options |= {zmq.HEARTBEAT_IVL: 1000, zmq.HEARTBEAT_TIMEOUT: 3000}
    link = open_link(parsed, security, high_water=_QUEUE, options=options)
    if parsed.kind == "sub":
        for topic in [stream.encode() + b"\0" for stream in streams] or [b""]:
            link.socket.subscribe(topic)
    return Inlet(link)
