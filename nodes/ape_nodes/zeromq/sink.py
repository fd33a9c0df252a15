"""Results out over ZeroMQ: `zmq:pub+bind:tcp://127.0.0.1:5557`."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Self

from ape_nodes.zeromq.sender import PubOutlet, open_outlet
from ape_nodes.zeromq.socket import Security
from ape_stream.errors import ConfigError, SinkError
from ape_stream.wire import Envelope, encode_end, encode_frame, encode_result
from ape_stream.wire.codecs import IMAGE_CODECS, LABEL_CODECS

if TYPE_CHECKING:
    from types import TracebackType

    from ape_nodes.zeromq.sender import LosslessOutlet, PushOutlet
    from ape_stream.types import Frame, FrameResult

__all__ = ["FrameSender", "ZmqSink"]


class _Sender:
    """Numbers the messages of each stream and sends them through an outlet."""

    def __init__(
        self, endpoint: str, security: Security, timeout_s: float, linger_s: float
    ) -> None:
        self._arguments = (endpoint, security)
        self._timeout_s = timeout_s
        self._linger_s = linger_s
        self._run = secrets.token_hex(8)
        self._next: dict[str, int] = {}
        self._outlet: PubOutlet | PushOutlet | LosslessOutlet | None = None

    def open(self, readers: int = 0) -> None:
        """Bind or connect; on a pub socket wait for so many readers."""
        endpoint, security = self._arguments
        self._outlet = open_outlet(
            endpoint, security, timeout_s=self._timeout_s, linger_s=self._linger_s
        )
        if readers:
            try:
                self.wait_for_readers(readers, self._timeout_s)
            except SinkError:
                self.close()
                raise

    def wait_for_readers(self, count: int, timeout_s: float) -> None:
        """Wait for so many subscriptions on a pub socket."""
        if isinstance(self.outlet, PubOutlet):
            self.outlet.wait_for(count, timeout_s)

    @property
    def outlet(self) -> PubOutlet | PushOutlet | LosslessOutlet:
        """The open outlet."""
        if self._outlet is None:
            raise SinkError(f"{self._arguments[0]} is not open: use it in a with statement")
        return self._outlet

    def envelope(self, stream: str) -> Envelope:
        """The next number of this stream."""
        sequence = self._next.get(stream, 0)
        self._next[stream] = sequence + 1
        return Envelope(stream, self._run, sequence, time.time_ns())

    @property
    def streams(self) -> list[str]:
        """The streams that were sent so far."""
        return list(self._next)

    def close(self) -> None:
        if self._outlet is not None:
            self._outlet.close()


class ZmqSink:
    """Sends every result to the readers of an endpoint.

    Args:
        spec: `zmq:pub+bind:tcp://127.0.0.1:5557` (latest) or `push`, `dealer`, `router` (every).
        image: None, "jpeg" or "bgr8": send the picture along.
        labels: None, "zstd" or "lz4": send the label map along, where there is one.
        quality: JPEG quality, 1..100.
        keys: Folder made by `ape-stream keys`, for encrypted and authenticated traffic.
        public: True allows an unencrypted bind that other machines reach.
        readers: Wait at the start until so many have subscribed (pub only).
        timeout_s: How long to wait for readers, at the start and for room.
        linger_s: How long closing may wait for the last results to be taken.

    Raises:
        ConfigError: an option or the endpoint cannot be used.
    """

    def __init__(  # noqa: PLR0913 (a plugin's options are its keyword arguments)
        self,
        spec: str,
        *,
        image: str | None = None,
        labels: str | None = None,
        quality: int = 80,
        keys: str | None = None,
        public: bool = False,
        readers: int = 0,
        timeout_s: float = 10.0,
        linger_s: float = 2.0,
    ) -> None:
        _one_of("image", image, (None, *IMAGE_CODECS))
        _one_of("labels", labels, (None, *LABEL_CODECS))
        self.name = spec
        self._form = {"image": image, "labels": labels}
        self._quality = quality
        self._readers = readers
        self._sender = _Sender(spec, Security.of(keys, public=public), timeout_s, linger_s)

    def __enter__(self) -> Self:
        """Bind or connect, and wait for readers where asked."""
        self._sender.open(self._readers)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close within the lingering time."""
        self._sender.close()

    @property
    def address(self) -> str:
        """Where it listens or calls, with the port that the system chose."""
        return self._sender.outlet.link.endpoint.address

    def stats(self) -> dict[str, int]:
        """Counts of what was sent; see `OutletStats`."""
        return self._sender.outlet.stats.as_dict()

    def wait_for_readers(self, count: int, timeout_s: float) -> None:
        """Wait until so many have subscribed (pub); the other sockets wait by themselves.

        Raises:
            SinkError: they did not come in time.
        """
        self._sender.wait_for_readers(count, timeout_s)

    def write(self, result: FrameResult) -> None:
        """Send a result under its stream's name.

        Raises:
            SinkError: mode every, and no reader took anything for `timeout_s`.
        """
        stream = result.frame.stream
        message = encode_result(
            result, self._sender.envelope(stream), quality=self._quality, **self._form
        )
        self._sender.outlet.send(stream, message)


class FrameSender:
    """Sends frames to a `zmq://` source in another process.

    Args:
        endpoint: `push+connect:tcp://127.0.0.1:5558`, or `pub`, `dealer`, `router`.
        image: "jpeg" or "bgr8" (bare pixels, nothing lost).
        quality: JPEG quality, 1..100.
        keys: Folder made by `ape-stream keys`.
        public: True allows an unencrypted bind that other machines reach.
        timeout_s: How long `send` waits for a reader.
        linger_s: How long closing may wait for the last frames to be taken.

    Raises:
        ConfigError: an option or the endpoint cannot be used.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        image: str = "jpeg",
        quality: int = 90,
        keys: str | None = None,
        public: bool = False,
        timeout_s: float = 10.0,
        linger_s: float = 2.0,
    ) -> None:
        _one_of("image", image, IMAGE_CODECS)
        self._image, self._quality = image, quality
        self._sender = _Sender(endpoint, Security.of(keys, public=public), timeout_s, linger_s)

    def __enter__(self) -> Self:
        """Bind or connect."""
        self._sender.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Tell the end of each stream, unless an error is underway, and close."""
        try:
            if error is None:
                for stream in self._sender.streams:
                    message = encode_end(self._sender.envelope(stream))
                    self._sender.outlet.send(stream, message)
        finally:
            self._sender.close()

    @property
    def address(self) -> str:
        """Where it listens or calls, with the port that the system chose."""
        return self._sender.outlet.link.endpoint.address

    def stats(self) -> dict[str, int]:
        """Counts of what was sent; see `OutletStats`."""
        return self._sender.outlet.stats.as_dict()

    def send(self, frame: Frame) -> None:
        """Send a frame.

        Raises:
            SinkError: mode every, and no reader took anything for `timeout_s`.
        """
        envelope = self._sender.envelope(frame.stream)
        message = encode_frame(frame, envelope, image=self._image, quality=self._quality)
        self._sender.outlet.send(frame.stream, message)


def _one_of(name: str, value: str | None, known: tuple[str | None, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name}={value!r} is none of {list(known)}")
