"""Frames in over ZeroMQ: `zmq://pull+bind:tcp://127.0.0.1:5558`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from ape_nodes.zeromq.endpoint import RECEIVING, Endpoint
from ape_nodes.zeromq.receiver import open_receiver
from ape_nodes.zeromq.socket import Security
from ape_stream.closing import Closing
from ape_stream.errors import SourceError, WireError
from ape_stream.sources.clock import StreamClock
from ape_stream.wire import decode_frame, peek
from ape_stream.wire.header import KIND_END

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_nodes.zeromq.receiver import Receiver
    from ape_stream.types import Frame

__all__ = ["ZmqSource"]

_POLL_S = 0.2
"""Of one wait, after which it looks whether it is to end."""


class _JoinedRuns:
    """The frames of one sender after another as one stream: times and indices go on rising."""

    def __init__(self, name: str) -> None:
        self.clock = StreamClock()
        self._name = name
        self._index_shift = 0
        self._last_index = -1

    def join(self, frame: Frame) -> Frame:
        """The frame as the next one of the stream.

        Raises:
            ValueError: its time is negative, not a number or too large.
        """
        now_s = time.monotonic()
        placed = self.clock.placed(frame, now_s)  # before the index: a refused frame shifts nothing
        # A sender that counts from 0 again goes on after the last index; its own gaps stay.
        if frame.index + self._index_shift <= self._last_index:
            self._index_shift = self._last_index + 1 - frame.index
        self._last_index = frame.index + self._index_shift
        # The sender's monotonic clock has no meaning on another machine.
        captured_ns = int(1e9 * now_s)
        return replace(placed, stream=self._name, index=self._last_index, captured_ns=captured_ns)


class ZmqSource(Closing):
    """Frames that a `FrameSender` in another process sends.

    A sender may start again, with times and indices from 0: the stream goes on in a new segment.
    A frame with an impossible time is refused, and counted.

    Args:
        spec: `zmq://pull+bind:tcp://127.0.0.1:5558`; `sub` drops old frames, `pull`, `dealer` and
            `router` deliver every frame and make the sender wait.
        name: Name of the stream here; the sender's name for it is not used.
        keys: Folder made by `ape-stream keys`.
        public: True allows an unencrypted bind that other machines reach.
        timeout_s: Longest time without a frame.

    Raises:
        ConfigError: the endpoint cannot be used.
    """

    def __init__(
        self,
        spec: str,
        *,
        name: str = "0",
        keys: str | None = None,
        public: bool = False,
        timeout_s: float = 30.0,
    ) -> None:
        self.name = name
        self.live = Endpoint.parse(spec, RECEIVING).delivery == "latest"
        self._spec = spec
        self._security = Security.of(keys, public=public)
        self._timeout_s = timeout_s
        self._opened: Receiver | None = None
        self._stream = _JoinedRuns(name)

    def __enter__(self) -> Self:
        """Bind or connect."""
        self._opened = open_receiver(self._spec, self._security)
        return self

    def close(self, _error: BaseException | None = None, /) -> None:
        """Close; the loop over frames ends."""
        self._receiver.close()

    @property
    def _receiver(self) -> Receiver:
        if self._opened is None:
            raise SourceError(f"{self._spec} is not open: use it in a with statement")
        return self._opened

    @property
    def address(self) -> str:
        """Where it is bound or connected to, with the port that the system chose."""
        return self._receiver.connection.endpoint.address

    def stats(self) -> dict[str, int]:
        """Counts of what arrived (see `ReceiverStats`), and `time_restarts`."""
        return {**self._receiver.stats.as_dict(), "time_restarts": self._stream.clock.restarts}

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the sender ends its stream or this source is closed.

        Raises:
            SourceError: no frame arrived for `timeout_s`.
        """
        receiver, arrived_s = self._receiver, time.monotonic()
        stream = self._stream = _JoinedRuns(self.name)
        while not receiver.closed:
            arrival = receiver.get(_POLL_S)
            # A message that is refused does not end the silence: a sender of garbage is no sender.
            try:
                if arrival is not None and peek(arrival[1])[0] == KIND_END:
                    return
                frame = None if arrival is None else stream.join(decode_frame(arrival[1]).frame)
            except (WireError, ValueError) as error:
                receiver.refuse(error)
                frame = None
            if frame is None:
                self._check_silence(time.monotonic() - arrived_s)
                continue
            arrived_s = time.monotonic()
            yield frame

    def _check_silence(self, silent_s: float) -> None:
        if silent_s > self._timeout_s:
            raise SourceError(f"no frame came to {self._spec} for {self._timeout_s:g} s")
