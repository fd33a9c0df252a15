"""Results out over ZeroMQ, `zmq:pub+bind:tcp://127.0.0.1:5557`, and frames to a `zmq://` source."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Self

from ape_nodes.zeromq.sender import PubSender, open_sender
from ape_nodes.zeromq.socket import Security
from ape_stream.closing import Closing
from ape_stream.errors import ConfigError, SinkError
from ape_stream.wire import Envelope, encode_end, encode_frame, encode_result
from ape_stream.wire.codecs import IMAGE_CODECS, LABEL_CODECS

if TYPE_CHECKING:
    from ape_nodes.zeromq.sender import Sender
    from ape_stream.types import Frame, FrameResult

__all__ = ["FrameSender", "ZmqSink"]


class _Outgoing(Closing):
    """An endpoint that is opened by `with`, and numbers the messages of each stream."""

    def __init__(
        self, endpoint: str, security: Security, *, timeout_s: float, linger_s: float
    ) -> None:
        self._endpoint = endpoint
        self._security = security
        self._timeout_s = timeout_s
        self._linger_s = linger_s
        self._run = secrets.token_hex(8)  # so that a restart is not read as a gap
        self._next: dict[str, int] = {}  # by stream: the sequence number of its next message
        self._opened: Sender | None = None

    def __enter__(self) -> Self:
        """Bind or connect."""
        self._opened = open_sender(
            self._endpoint, self._security, timeout_s=self._timeout_s, linger_s=self._linger_s
        )
        return self

    @property
    def _sender(self) -> Sender:
        if self._opened is None:
            raise SinkError(f"{self._endpoint} is not open: use it in a with statement")
        return self._opened

    @property
    def address(self) -> str:
        """Where it is bound or connected to, with the port that the system chose."""
        return self._sender.connection.endpoint.address

    def stats(self) -> dict[str, int]:
        """Counts of what was sent; see `SenderStats`."""
        return self._sender.stats.as_dict()

    def wait_for_readers(self, count: int, timeout_s: float) -> None:
        """Wait until so many are subscribed (pub); the other sockets wait by themselves.

        Raises:
            SinkError: there were too few in time.
        """
        if isinstance(self._sender, PubSender):
            self._sender.wait_for_readers(count, timeout_s)

    def _envelope(self, stream: str) -> Envelope:
        """Run and sequence number of this stream's next message."""
        sequence = self._next.get(stream, 0)
        self._next[stream] = sequence + 1
        return Envelope(stream, self._run, sequence, time.time_ns())

    def close(self, _error: BaseException | None = None, /) -> None:
        """Close within the linger time."""
        if self._opened is not None:
            self._opened.close()


class ZmqSink(_Outgoing):
    """Sends every result to the readers of an endpoint.

    Args:
        spec: `zmq:pub+bind:tcp://127.0.0.1:5557` (delivery latest), or `push`, `dealer`, `router`
            (delivery every).
        image: None, "jpeg" or "bgr8": send the image along.
        labels: None, "zstd" or "lz4": send a label map along (0 nothing, k = prompt k-1).
        quality: JPEG quality, 1..100.
        keys: Folder made by `ape-stream keys`, for encrypted and authenticated traffic.
        public: True allows an unencrypted bind that other machines reach.
        readers: Wait at the start until so many are subscribed (pub only).
        timeout_s: How long to wait for readers: at the start, and for room.
        linger_s: How long closing may wait for the last results to be received.

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
        _check_choice("image", image, (None, *IMAGE_CODECS))
        _check_choice("labels", labels, (None, *LABEL_CODECS))
        security = Security.of(keys, public=public)
        super().__init__(spec, security, timeout_s=timeout_s, linger_s=linger_s)
        self.name = spec
        self._codecs = {"image": image, "labels": labels}
        self._quality = quality
        self._readers = readers

    def __enter__(self) -> Self:
        """Bind or connect, and wait for readers where asked.

        Raises:
            SinkError: there were too few readers in time.
        """
        super().__enter__()
        if self._readers:
            # Publishing starts only when they are there: what a pub socket sends before is lost.
            try:
                self.wait_for_readers(self._readers, self._timeout_s)
            except SinkError:
                self.close()
                raise
        return self

    def write(self, result: FrameResult) -> None:
        """Send a result under its stream's name.

        Raises:
            SinkError: delivery every, and no reader took anything for `timeout_s`.
        """
        stream = result.frame.stream
        envelope = self._envelope(stream)
        message = encode_result(result, envelope, quality=self._quality, **self._codecs)
        self._sender.send(stream, message)


class FrameSender(_Outgoing):
    """Sends frames to a `zmq://` source in another process.

    Args:
        endpoint: `push+connect:tcp://127.0.0.1:5558`, or `pub`, `dealer`, `router`.
        image: "jpeg" or "bgr8" (plain pixels, lossless).
        quality: JPEG quality, 1..100.
        keys: Folder made by `ape-stream keys`.
        public: True allows an unencrypted bind that other machines reach.
        timeout_s: How long `send` waits for a reader.
        linger_s: How long closing may wait for the last frames to be received.

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
        _check_choice("image", image, IMAGE_CODECS)
        security = Security.of(keys, public=public)
        super().__init__(endpoint, security, timeout_s=timeout_s, linger_s=linger_s)
        self._image, self._quality = image, quality

    def send(self, frame: Frame) -> None:
        """Send a frame.

        Raises:
            SinkError: delivery every, and no reader took anything for `timeout_s`.
        """
        envelope = self._envelope(frame.stream)
        message = encode_frame(frame, envelope, image=self._image, quality=self._quality)
        self._sender.send(frame.stream, message)

    def close(self, error: BaseException | None = None, /) -> None:
        """Send the end of each stream, unless an error ended the sending, and close."""
        try:
            if error is None:  # after an error the stream was cut off, and readers go on waiting
                for stream in list(self._next):
                    self._sender.send(stream, encode_end(self._envelope(stream)))
        finally:
            super().close(error)


def _check_choice(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is none of {list(choices)}")
