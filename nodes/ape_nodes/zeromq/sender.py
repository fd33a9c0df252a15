"""The sending side: `latest` to whoever listens now, or `every` message with back-pressure."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

import zmq

from ape_nodes.zeromq.endpoint import SENDING, Endpoint
from ape_nodes.zeromq.reliable import SendingEnd, parse_ack
from ape_nodes.zeromq.socket import Link, Security, open_link, worth_telling
from ape_stream.errors import SinkError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LosslessOutlet", "Outlet", "OutletStats", "PubOutlet", "PushOutlet", "open_outlet"]

_SLICE_MS = 50
_PUB_HIGH_WATER = 8
"""Enough for a hiccup; more would only be old news for a slow reader."""
_HEARD_AT_ONCE = 256
"""Messages from readers that are heard before the next one is sent: a flood must not stop it."""
_MAX_READER_BYTES = 1 << 16
"""A subscription or an acknowledgement is shorter; who sends more is cut off."""
_log = logging.getLogger("ape_stream")


@dataclass(slots=True)
class OutletStats:
    """What a sender has done."""

    sent: int = 0
    """Messages given to ZeroMQ or kept for a reader."""
    unheard: int = 0
    """Messages published while nobody listened (pub only)."""
    resent: int = 0
    """Messages sent again (dealer and router only)."""
    acknowledged: int = 0
    """Messages that a reader's code has taken (dealer and router only)."""
    unacknowledged: int = 0
    """Messages that wait for a reader (dealer and router only)."""
    refused: int = 0
    """Messages from readers that made no sense."""

    def as_dict(self) -> dict[str, int]:
        """The numbers by name."""
        return asdict(self)


class Outlet(Protocol):
    """Where messages go out."""

    link: Link
    stats: OutletStats

    def send(self, stream: str, message: bytes) -> None:
        """Send a message of this stream.

        Raises:
            SinkError: nobody takes it within the time that was set.
        """

    def close(self) -> None:
        """Deliver what can be delivered in the lingering time and close."""


class PubOutlet:
    """Publishes to all who listen at this moment; never waits (mode `latest`).

    Args:
        link: An XPUB socket.
        linger_s: How long `close` waits for the last messages to leave.
    """

    def __init__(self, link: Link, linger_s: float) -> None:
        self.link = link
        self.stats = OutletStats()
        self.readers = 0
        self._linger_s = linger_s

    def _listen(self) -> None:
        for _ in range(_HEARD_AT_ONCE):
            if not self.link.socket.poll(0):
                return
            note = self.link.socket.recv()
            heard = self.readers + {b"\x01": 1, b"\x00": -1}.get(note[:1], 0)
            self.readers = max(0, heard)

    def send(self, stream: str, message: bytes) -> None:
        """Publish, topic first: one part, so that CONFLATE works for readers who use it."""
        self._listen()
        self.stats.unheard += self.readers == 0
        self.stats.sent += 1
        self.link.socket.send(stream.encode() + b"\0" + message)

    def wait_for(self, readers: int, timeout_s: float) -> None:
        """Wait until so many subscriptions have come.

        Raises:
            SinkError: they did not come in time.
        """
        deadline = time.monotonic() + timeout_s
        while self.readers < readers:
            if time.monotonic() > deadline:
                raise SinkError(
                    f"{self.readers} of {readers} readers came to {self.link.endpoint} within"
                    f" {timeout_s:g} s: start them first or lower readers="
                )
            self.link.socket.poll(_SLICE_MS)
            self._listen()

    def close(self) -> None:
        """Close within the lingering time."""
        self.link.close(self._linger_s)


class PushOutlet:
    """Hands each message to one of the pullers; waits while all are busy (mode `every`).

    Args:
        link: A PUSH socket.
        timeout_s: How long `send` waits for a reader.
        linger_s: How long `close` waits for the last messages to leave.
    """

    def __init__(self, link: Link, timeout_s: float, linger_s: float) -> None:
        self.link = link
        self.stats = OutletStats()
        self._timeout_s = timeout_s
        self._linger_s = linger_s

    def send(self, stream: str, message: bytes) -> None:
        """Wait for room and send."""
        deadline = time.monotonic() + self._timeout_s
        whole = stream.encode() + b"\0" + message
        while not self._put(whole):
            if time.monotonic() > deadline:
                raise _nobody(self.link, self._timeout_s)
        self.stats.sent += 1

    def _put(self, whole: bytes) -> bool:
        if not self.link.socket.poll(_SLICE_MS, zmq.POLLOUT):
            return False
        try:
            self.link.socket.send(whole, zmq.NOBLOCK)
        except zmq.Again:  # the reader that had room is gone meanwhile
            return False
        return True

    def close(self) -> None:
        """Close within the lingering time."""
        self.link.close(self._linger_s)


class LosslessOutlet:
    """Keeps each message until its reader has taken it (mode `every`, across restarts).

    A reader may come, ask again or be replaced while nothing is sent for a long time: a thread
    looks after it meanwhile, and the lock lets one thread at a time use the socket.

    Args:
        link: A DEALER or ROUTER socket.
        window: Messages that may wait for the reader; then `send` waits.
        timeout_s: How long `send` waits without any progress.
        linger_s: How long `close` waits for the reader to take the rest.
    """

    def __init__(self, link: Link, window: int, timeout_s: float, linger_s: float) -> None:
        self.link = link
        self.stats = OutletStats()
        self._end = SendingEnd(window)
        self._peer: bytes | None = None
        self._timeout_s = timeout_s
        self._linger_s = linger_s
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._look_after_reader, name=f"ape_nodes {link.endpoint}", daemon=True
        )
        self._thread.start()

    def _look_after_reader(self) -> None:
        while not self._closing.wait(_SLICE_MS / 1000):
            self._pump(0)

    def send(self, stream: str, message: bytes) -> None:
        """Keep the message, waiting for room if need be, and send what can be sent."""
        if not self._pump_while(lambda: self._end.full, self._timeout_s):
            raise _nobody(self.link, self._timeout_s)
        with self._lock:
            self._end.add(stream.encode() + b"\0" + message)
        self.stats.sent += 1
        self._pump(0)

    def close(self) -> None:
        """Wait for the reader to take the rest, then close; what nobody took is told."""
        self._closing.set()
        self._thread.join()
        if not self._pump_while(lambda: self._end.unacknowledged > 0, self._linger_s):
            _log.warning(
                "%s: %d results were not taken by any reader",
                self.link.endpoint,
                self._end.unacknowledged,
            )
        self.link.close(0)

    def _pump_while(self, busy: Callable[[], bool], patience_s: float) -> bool:
        """Work until not `busy`; False once nothing was acknowledged for `patience_s`."""
        acknowledged, since_s = self._end.acknowledged, time.monotonic()
        while busy():
            self._pump(_SLICE_MS)
            if self._end.acknowledged != acknowledged:
                acknowledged, since_s = self._end.acknowledged, time.monotonic()
            elif time.monotonic() - since_s > patience_s:
                return False
        return True

    def _pump(self, wait_ms: int) -> None:
        with self._lock:
            self._transmit()
            for _ in range(_HEARD_AT_ONCE):
                if not self.link.socket.poll(wait_ms):
                    break
                self._hear(self.link.socket.recv_multipart())
                wait_ms = 0
            self._transmit()
            end = self._end
            self.stats.acknowledged, self.stats.resent = end.acknowledged, end.resent
            self.stats.unacknowledged = end.unacknowledged

    def _hear(self, parts: list[bytes]) -> None:
        try:
            ack = parse_ack(parts[-1])
        except WireError as error:
            self.stats.refused += 1
            if worth_telling(self.stats.refused):
                _log.warning("%s: answer refused (%d so far): %s",
                             self.link.endpoint, self.stats.refused, error)  # fmt: skip
            return
        if self._end.hear(ack, time.monotonic()) and self.link.endpoint.kind == "router":
            self._peer = parts[0]

    def _transmit(self) -> None:
        while (due := self._end.due()) is not None:
            if not self._put(list(due)):
                return
            self._end.sent()
        if (ping := self._end.ping(time.monotonic())) is not None:
            self._put([ping])

    def _put(self, parts: list[bytes]) -> bool:
        if self.link.endpoint.kind == "router":
            if self._peer is None:
                return False
            parts = [self._peer, *parts]
        try:
            self.link.socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                return False
            raise
        return True


def _nobody(link: Link, timeout_s: float) -> SinkError:
    return SinkError(
        f"no reader took a message from {link.endpoint} for {timeout_s:g} s: start one, or raise"
        " timeout_s"
    )


def open_outlet(
    endpoint: str,
    security: Security,
    *,
    window: int = 32,
    timeout_s: float = 10.0,
    linger_s: float = 2.0,
) -> PubOutlet | PushOutlet | LosslessOutlet:
    """Open the sending side of an endpoint string.

    Raises:
        ConfigError: the endpoint cannot be used, or is public and unguarded.
    """
    parsed = Endpoint.parse(endpoint, SENDING)
    if parsed.kind == "pub":
        options: dict[int, int | bytes] = {
            zmq.XPUB_VERBOSER: 1,
            zmq.HEARTBEAT_IVL: 1000,
            zmq.HEARTBEAT_TIMEOUT: 3000,
            zmq.MAXMSGSIZE: _MAX_READER_BYTES,
        }
        link = open_link(parsed, security, high_water=_PUB_HIGH_WATER, options=options)
        return PubOutlet(link, linger_s)
    if parsed.kind == "push":
        link = open_link(parsed, security, high_water=window, options={})
        return PushOutlet(link, timeout_s, linger_s)
    options = {zmq.MAXMSGSIZE: _MAX_READER_BYTES}
    if parsed.kind == "router":
        options[zmq.ROUTER_MANDATORY] = 1
    link = open_link(parsed, security, high_water=2 * window, options=options)
    return LosslessOutlet(link, window, timeout_s, linger_s)
