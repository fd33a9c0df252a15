"""Sockets that send: the latest message to present readers, or every message with back-pressure."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

import zmq

from ape_nodes.zeromq.endpoint import SENDING, Endpoint
from ape_nodes.zeromq.reliable import SendWindow, parse_ack
from ape_nodes.zeromq.socket import Connection, Security, open_connection, should_log
from ape_stream.errors import SinkError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PubSender", "PushSender", "ReliableSender", "Sender", "SenderStats", "open_sender"]

_POLL_MS = 50
"""Of one wait, after which it looks whether it is to end."""
_PUB_HIGH_WATER = 8
"""Enough for a short delay of a reader; a longer queue would only hold old results."""
_RECEIVE_BURST = 256
"""Messages from readers that are read before the next send: a flood of them must not stop it."""
_MAX_READER_BYTES = 1 << 16
"""A subscription or an acknowledgement is shorter; a peer that sends more is disconnected."""
_log = logging.getLogger("ape_stream")


@dataclass(slots=True)
class SenderStats:
    """Counts of what was sent."""

    sent: int = 0
    """Messages given to ZeroMQ or kept for a reader."""
    readers: int = 0
    """Subscriptions at present (pub only)."""
    no_reader: int = 0
    """Messages published while nobody was subscribed (pub only)."""
    resent: int = 0
    """Messages sent again (dealer and router only)."""
    acknowledged: int = 0
    """Messages that a reader's code has received (dealer and router only)."""
    unacknowledged: int = 0
    """Messages that wait for a reader (dealer and router only)."""
    refused: int = 0
    """Messages from readers that are invalid."""

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


class PubSender:
    """Publishes to all who are subscribed at this moment; never waits (delivery `latest`).

    Args:
        connection: An XPUB socket.
        linger_s: How long `close` waits for the last messages to leave.
    """

    def __init__(self, connection: Connection, linger_s: float) -> None:
        self.connection = connection
        self.stats = SenderStats()
        self._linger_s = linger_s

    def _receive_subscriptions(self) -> None:
        # An XPUB receives a message per change: 1 and the topic, or 0 and the topic.
        for _ in range(_RECEIVE_BURST):
            if not self.connection.socket.poll(0):
                return
            message = self.connection.socket.recv()
            change = {b"\x01": 1, b"\x00": -1}.get(message[:1], 0)
            # Never below 0: a hostile peer may unsubscribe without having subscribed.
            self.stats.readers = max(0, self.stats.readers + change)

    def send(self, stream: str, message: bytes) -> None:
        """Publish, topic first, as one part, so that readers can use CONFLATE."""
        self._receive_subscriptions()
        self.stats.no_reader += self.stats.readers == 0
        self.stats.sent += 1
        self.connection.socket.send(stream.encode() + b"\0" + message)

    def wait_for_readers(self, count: int, timeout_s: float) -> None:
        """Wait until so many are subscribed.

        Raises:
            SinkError: there were too few in time.
        """
        deadline = time.monotonic() + timeout_s
        while self.stats.readers < count:
            if time.monotonic() > deadline:
                raise SinkError(
                    f"{self.stats.readers} of {count} readers came to {self.connection.endpoint}"
                    f" within {timeout_s:g} s: start them first or lower readers="
                )
            self.connection.socket.poll(_POLL_MS)  # returns early when a subscription arrives
            self._receive_subscriptions()

    def close(self) -> None:
        """Close within the linger time."""
        self.connection.close(self._linger_s)


class PushSender:
    """Gives each message to one of the readers; waits while all are busy (delivery `every`).

    Args:
        connection: A PUSH socket.
        timeout_s: How long `send` waits for a reader.
        linger_s: How long `close` waits for the last messages to leave.
    """

    def __init__(self, connection: Connection, timeout_s: float, linger_s: float) -> None:
        self.connection = connection
        self.stats = SenderStats()
        self._timeout_s = timeout_s
        self._linger_s = linger_s

    def send(self, stream: str, message: bytes) -> None:
        """Wait for a reader with room, and send.

        Raises:
            SinkError: there was none in time.
        """
        deadline = time.monotonic() + self._timeout_s
        whole = stream.encode() + b"\0" + message
        while not self._try_send(whole):
            if time.monotonic() > deadline:
                raise _no_reader(self.connection, self._timeout_s)
        self.stats.sent += 1

    def _try_send(self, whole: bytes) -> bool:
        if not self.connection.socket.poll(_POLL_MS, zmq.POLLOUT):
            return False
        try:
            self.connection.socket.send(whole, zmq.NOBLOCK)
        except zmq.Again:  # the reader that had room has gone since
            return False
        return True

    def close(self) -> None:
        """Close within the linger time."""
        self.connection.close(self._linger_s)


class ReliableSender:
    """Keeps each message until a reader has received it, over its restarts (delivery `every`).

    A reader may connect, ask for messages again or be replaced while nothing is sent for a long
    time: so a thread answers it meanwhile, and a lock gives the socket to one thread at a time.

    Args:
        connection: A DEALER or ROUTER socket.
        window: Messages that may wait for the reader; then `send` waits.
        timeout_s: How long `send` waits without any progress.
        linger_s: How long `close` waits for the reader to receive the rest.
    """

    def __init__(
        self, connection: Connection, window: int, timeout_s: float, linger_s: float
    ) -> None:
        self.connection = connection
        self.stats = SenderStats()
        self._window = SendWindow(window)
        self._is_router = connection.endpoint.kind == "router"
        self._peer: bytes | None = None  # the reader that a router addresses
        self._timeout_s = timeout_s
        self._linger_s = linger_s
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._serve_reader, name=f"ape_nodes {connection.endpoint}", daemon=True
        )
        self._thread.start()

    def _serve_reader(self) -> None:
        while not self._closing.wait(_POLL_MS / 1000):
            self._exchange(0)

    def send(self, stream: str, message: bytes) -> None:
        """Keep the message, after waiting for room if need be, and send what can be sent.

        Raises:
            SinkError: no reader acknowledged anything in time.
        """
        if not self._exchange_while(lambda: self._window.full, self._timeout_s):
            raise _no_reader(self.connection, self._timeout_s)
        with self._lock:
            self._window.add(stream.encode() + b"\0" + message)
        self.stats.sent += 1
        self._exchange(0)

    def close(self) -> None:
        """Wait for the reader to receive the rest, then close; log what nobody received."""
        self._closing.set()
        self._thread.join()  # from here on this thread alone uses the socket
        if not self._exchange_while(lambda: self._window.unacknowledged > 0, self._linger_s):
            _log.warning(
                "%s: %d messages were not received by any reader",
                self.connection.endpoint,
                self._window.unacknowledged,
            )
        self.connection.close(0)

    def _exchange_while(self, busy: Callable[[], bool], patience_s: float) -> bool:
        """Exchange messages until not `busy`; False after `patience_s` without progress."""
        # A slow reader that goes on acknowledging is waited for, however long it takes.
        acknowledged, since_s = self._window.acknowledged, time.monotonic()
        while busy():
            self._exchange(_POLL_MS)
            if self._window.acknowledged != acknowledged:
                acknowledged, since_s = self._window.acknowledged, time.monotonic()
            elif time.monotonic() - since_s > patience_s:
                return False
        return True

    def _exchange(self, wait_ms: int) -> None:
        """Send what is due and take acknowledgements; waits at most `wait_ms` for the first."""
        with self._lock:
            # Sending twice: what was due before, and what the acknowledgements just made due.
            self._send_due()
            for _ in range(_RECEIVE_BURST):
                if not self.connection.socket.poll(wait_ms):
                    break
                self._receive_ack(self.connection.socket.recv_multipart())
                wait_ms = 0  # the first one may be waited for, the others are there or not
            self._send_due()
            window = self._window
            self.stats.acknowledged, self.stats.resent = window.acknowledged, window.resent
            self.stats.unacknowledged = window.unacknowledged

    def _receive_ack(self, parts: list[bytes]) -> None:
        try:
            ack = parse_ack(parts[-1])  # a router has the peer's id as a part before it
        except WireError as error:
            self.stats.refused += 1
            if should_log(self.stats.refused):
                endpoint, count = self.connection.endpoint, self.stats.refused
                _log.warning("%s: answer refused (%d so far): %s", endpoint, count, error)
            return
        if self._window.on_ack(ack, time.monotonic()) and self._is_router:
            self._peer = parts[0]

    def _send_due(self) -> None:
        while (due := self._window.due()) is not None:
            if not self._try_send(list(due)):
                return
            self._window.mark_sent()
        if (ping := self._window.ping(time.monotonic())) is not None:
            self._try_send([ping])

    def _try_send(self, parts: list[bytes]) -> bool:
        if self._is_router:
            if self._peer is None:  # a router can only address a peer that has sent something
                return False
            parts = [self._peer, *parts]
        try:
            self.connection.socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # The queue is full, or the reader has gone: the window keeps the message.
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                return False
            raise
        return True


Sender: TypeAlias = PubSender | PushSender | ReliableSender


def _no_reader(connection: Connection, timeout_s: float) -> SinkError:
    return SinkError(
        f"no reader took a message from {connection.endpoint} for {timeout_s:g} s: start one, or"
        " raise timeout_s"
    )


def open_sender(
    endpoint: str,
    security: Security,
    *,
    window: int = 32,
    timeout_s: float = 10.0,
    linger_s: float = 2.0,
) -> Sender:
    """Open a socket that sends.

    Args:
        endpoint: An endpoint string.
        security: Keys, or permission to go without.
        window: Messages that may wait for a reader (delivery `every`).
        timeout_s: How long sending waits for a reader.
        linger_s: How long closing waits for the last messages.

    Raises:
        ConfigError: the endpoint cannot be used, or is public and unguarded.
    """
    parsed = Endpoint.parse(endpoint, SENDING)
    if parsed.kind == "pub":
        options: dict[int, int | bytes] = {
            zmq.XPUB_VERBOSER: 1,  # every subscription is passed on, so that readers are counted
            zmq.HEARTBEAT_IVL: 1000,
            zmq.HEARTBEAT_TIMEOUT: 3000,
            zmq.MAXMSGSIZE: _MAX_READER_BYTES,
        }
        connection = open_connection(parsed, security, high_water=_PUB_HIGH_WATER, options=options)
        return PubSender(connection, linger_s)
    if parsed.kind == "push":
        connection = open_connection(parsed, security, high_water=window, options={})
        return PushSender(connection, timeout_s, linger_s)
    options = {zmq.MAXMSGSIZE: _MAX_READER_BYTES}
    if parsed.kind == "router":
        options[zmq.ROUTER_MANDATORY] = 1  # an absent peer is an error, not a silent loss
    # Room for a whole window and its repetition, so that ZeroMQ itself never holds it up.
    connection = open_connection(parsed, security, high_water=2 * window, options=options)
    return ReliableSender(connection, window, timeout_s, linger_s)
