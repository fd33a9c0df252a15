"""Sockets that receive. One thread owns the socket, so a slow user never gets old messages.

`latest` keeps the newest message of each stream; `every` keeps a few and then lets ZeroMQ, and so
the sender, wait. Sequence numbers are checked here: every gap is counted.
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
from ape_nodes.zeromq.reliable import Ack, ReceiveWindow, parse_header
from ape_nodes.zeromq.socket import Connection, Security, open_connection, should_log
from ape_stream.errors import SourceError, WireError
from ape_stream.wire import peek
from ape_stream.wire.header import MAX_MESSAGE_BYTES

__all__ = ["Receiver", "ReceiverStats", "open_receiver"]

HEARTBEAT_S: Final = 0.5
"""Between two acknowledgements of all that came, which also say that the reader lives."""
_POLL_MS: Final = 10
"""Of one wait for a message, in which no acknowledgement is sent."""
_QUEUE: Final = 8
"""Messages that may wait in each queue."""
_MAX_PEERS: Final = 256  # more than the runs that `ReceiveWindow` remembers
_MAX_RUNS: Final = 1024  # runs whose sequence numbers are followed; streams that may wait
_MAX_TOPIC_BYTES: Final = 1 << 16
_log = logging.getLogger("ape_stream")


@dataclass(slots=True)
class ReceiverStats:
    """Counts of what arrived."""

    received: int = 0
    """Whole messages that arrived."""
    missed: int = 0
    """Gaps in the sequence numbers: sent, but never arrived."""
    before_join: int = 0
    """Sent by a run before its first message that arrived here: without a reader, to another
    reader, or lost with one that died."""
    skipped: int = 0
    """Arrived, but a newer one arrived before the user asked (delivery latest)."""
    duplicates: int = 0
    """Arrived twice and were left out (delivery every)."""
    restarts: int = 0
    """How often a known stream came from a new run, or a known run counted from 0 again."""
    refused: int = 0
    """Messages that are not ours, of another version, or cannot be decoded."""
    waiting: int = 0
    """Messages that wait for the user now."""
    runs: int = 0
    """Runs whose sequence numbers are followed now."""

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


@dataclass(slots=True)
class _Arrival:
    stream: str
    data: bytes
    run: bytes
    sequence: int


class _Sequences:
    """Follows the sequence numbers of each run by itself: two senders may share a stream."""

    def __init__(self, stats: ReceiverStats) -> None:
        self._stats = stats
        self._last: dict[tuple[str, str], int] = {}  # by stream and run; the latest is last
        self._runs_of: dict[str, int] = {}  # by stream: how many of its runs are followed

    def add(self, stream: str, run: str, sequence: int) -> None:
        """Count one message that arrived."""
        stats = self._stats
        stats.received += 1
        last = self._last.pop((stream, run), None)
        if last is None:
            stats.before_join += sequence
            stats.restarts += stream in self._runs_of
            self._runs_of[stream] = self._runs_of.get(stream, 0) + 1
        elif sequence <= last:  # the sender counts from 0 again under the same run
            stats.restarts += 1
        else:
            stats.missed += sequence - last - 1
        self._last[stream, run] = sequence
        if len(self._last) > _MAX_RUNS:
            self._forget(next(iter(self._last)))
        stats.runs = len(self._last)

    def _forget(self, oldest: tuple[str, str]) -> None:
        del self._last[oldest]
        self._runs_of[oldest[0]] -= 1
        if not self._runs_of[oldest[0]]:
            del self._runs_of[oldest[0]]


class Receiver:
    """Receives in a thread of its own; `get` and `close` may be called from any thread.

    Args:
        connection: A SUB, PULL, DEALER or ROUTER socket.
    """

    def __init__(self, connection: Connection) -> None:
        kind = connection.endpoint.kind
        self.connection = connection
        self.stats = ReceiverStats()
        self._latest = connection.endpoint.delivery == "latest"
        self._has_peer_ids = kind == "router"  # then the first part says who sent, or who gets it
        self._ready: deque[_Arrival] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._sequences = _Sequences(self.stats)
        self._window = ReceiveWindow() if kind in ("dealer", "router") else None
        # `get` runs in another thread than the window: the deque passes on what it returned.
        self._delivered: deque[tuple[bytes, int]] = deque()  # by `get`, not acknowledged yet
        self._peers: dict[bytes, bytes] = {}  # by run; the latest is last
        self._beat_s = 0.0
        self._failure: Exception | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"ape_nodes {connection.endpoint}", daemon=True
        )
        self._thread.start()

    # -- from any thread ------------------------------------------------------------------

    def get(self, timeout_s: float) -> tuple[str, bytes] | None:
        """Stream and message that are next, or None when none came in time or it was closed.

        Raises:
            SourceError: the socket failed.
        """
        with self._changed:
            self._changed.wait_for(self._has_news, timeout_s)
            if self._failure is not None:
                endpoint = self.connection.endpoint
                raise SourceError(f"{endpoint}: {self._failure}") from self._failure
            if not self._ready or self._closing.is_set():
                return None
            arrival = self._ready.popleft()
            self.stats.waiting = len(self._ready)
            if self._window is not None:
                self._delivered.append((arrival.run, arrival.sequence))
            return arrival.stream, arrival.data

    def refuse(self, error: Exception) -> None:
        """Count a message that cannot be used, and log some of them."""
        with self._changed:
            self.stats.refused += 1
            count = self.stats.refused
        if should_log(count):
            endpoint = self.connection.endpoint
            _log.warning("%s: message refused (%d so far): %s", endpoint, count, error)

    def _has_news(self) -> bool:
        return bool(self._ready or self._closing.is_set() or self._failure is not None)

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closing.is_set()

    def close(self) -> None:
        """Stop the thread and close the socket."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- in the thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._work()
            self._acknowledge(everything=True)  # also what `get` returned last
        except Exception as error:  # noqa: BLE001 (the next `get` raises it)
            # Such as a failing system call: the socket is of no use any more.
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        finally:
            self.connection.close(0.2 if self._window is not None else 0.0)

    def _work(self) -> None:
        """Receive a message if there is room for one, and acknowledge."""
        if self._latest or len(self._ready) < _QUEUE:
            if self.connection.socket.poll(_POLL_MS):  # short: it also bounds how late acks are
                self._receive(self.connection.socket.recv_multipart())
        else:
            time.sleep(_POLL_MS / 1000)
        if self._window is not None:
            now_s = time.monotonic()
            is_beat = now_s - self._beat_s > HEARTBEAT_S
            self._beat_s = now_s if is_beat else self._beat_s
            self._acknowledge(everything=is_beat)

    def _receive(self, parts: list[bytes]) -> None:
        try:
            if self._window is None:
                self._arrive(parts[-1], b"", 0)
            else:
                self._receive_delivery(self._window, parts)
        except WireError as error:
            self.refuse(error)

    def _receive_delivery(self, window: ReceiveWindow, parts: list[bytes]) -> None:
        """Take a delivery header, alone as a ping or with its message."""
        peer = parts.pop(0) if self._has_peer_ids else b""
        if len(parts) not in (1, 2):
            raise WireError(f"a delivery has one or two parts, this one {len(parts)}")
        header = parse_header(parts[0])
        if header.is_ping != (len(parts) == 1):
            raise WireError("a delivery header without its message")
        self._remember(header.run, peer)
        is_next, answer = window.accept(header, time.monotonic())
        self.stats.duplicates = window.duplicates
        if answer is not None:
            self._send(answer)
        if is_next:
            try:
                self._arrive(parts[1], header.run, header.sequence)
            except WireError:  # acknowledged all the same: sent again it would be no better
                window.delivered(header.run, header.sequence)
                raise

    def _remember(self, run: bytes, peer: bytes) -> None:
        # A dict keeps the order of insertion: taken out and put back, it is the latest.
        self._peers.pop(run, None)
        self._peers[run] = peer
        if len(self._peers) > _MAX_PEERS:
            del self._peers[next(iter(self._peers))]

    def _arrive(self, message: bytes, run: bytes, sequence: int) -> None:
        # One part, topic and message apart by a zero byte: CONFLATE takes single parts only.
        topic, _, data = message.partition(b"\0")
        try:
            stream = topic.decode()
        except UnicodeDecodeError as error:
            raise WireError("the topic is not UTF-8") from error
        _, envelope = peek(data)
        self._sequences.add(stream, envelope.run, envelope.sequence)
        with self._changed:
            if self._latest:
                self._drop_older(stream)
            self._ready.append(_Arrival(stream, data, run, sequence))
            self.stats.waiting = len(self._ready)
            self._changed.notify_all()

    def _drop_older(self, stream: str) -> None:
        """Drop what waits of this stream; of the oldest stream where too many wait."""
        # A stream has at most one message here; the search is short unless streams are many.
        older = [arrival for arrival in self._ready if arrival.stream == stream]
        if not older and len(self._ready) >= _MAX_RUNS:
            older = [self._ready[0]]
        for arrival in older:
            self._ready.remove(arrival)
            self.stats.skipped += 1

    def _acknowledge(self, *, everything: bool) -> None:
        if self._window is None:
            return
        while self._delivered:
            self._window.delivered(*self._delivered.popleft())
        acks = self._window.acks(everything=everything)
        for ack in acks:
            self._send(ack)
        if everything and not acks and not self._has_peer_ids:  # a router knows no peer to address
            self._send(self._window.announce())

    def _send(self, ack: Ack) -> None:
        parts = [self._peers[ack.run]] if self._has_peer_ids else []
        try:
            self.connection.socket.send_multipart([*parts, ack.pack()], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise


def open_receiver(endpoint: str, security: Security, streams: tuple[str, ...] = ()) -> Receiver:
    """Open a socket that receives.

    Args:
        endpoint: An endpoint string.
        security: Keys, or permission to go without.
        streams: Names of the streams to subscribe to (sub only); none means all.

    Raises:
        ConfigError: the endpoint cannot be used, or is public and unguarded.
    """
    parsed = Endpoint.parse(endpoint, RECEIVING)
    options: dict[int, int | bytes] = {zmq.MAXMSGSIZE: MAX_MESSAGE_BYTES + _MAX_TOPIC_BYTES}
    if parsed.kind == "sub":
        options |= {zmq.HEARTBEAT_IVL: 1000, zmq.HEARTBEAT_TIMEOUT: 3000}
    connection = open_connection(parsed, security, high_water=_QUEUE, options=options)
    if parsed.kind == "sub":
        for topic in [stream.encode() + b"\0" for stream in streams] or [b""]:
            connection.socket.subscribe(topic)
    return Receiver(connection)
