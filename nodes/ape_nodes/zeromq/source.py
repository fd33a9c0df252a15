"""Frames in over ZeroMQ: `zmq://pull+bind:tcp://127.0.0.1:5558`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from ape_nodes.zeromq.endpoint import RECEIVING, Endpoint
from ape_nodes.zeromq.receiver import open_inlet
from ape_nodes.zeromq.socket import Security
from ape_stream.errors import SourceError, WireError
from ape_stream.wire import decode_frame, peek
from ape_stream.wire.header import KIND_END

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from ape_nodes.zeromq.receiver import Inlet
    from ape_stream.types import Frame

__all__ = ["ZmqSource"]

_SLICE_S = 0.2


class ZmqSource:
    """Frames that a `FrameSender` in another process sends.

    Args:
        spec: `zmq://pull+bind:tcp://127.0.0.1:5558`; `sub` drops old frames, `pull`, `dealer` and
            `router` deliver every frame and make the sender wait.
        name: Name of the stream here; the sender's name for it is not used.
        keys: Folder made by `ape-stream keys`.
        public: True allows an unencrypted bind that other machines reach.
        timeout_s: Longest silence of the sender.

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
        self._inlet: Inlet | None = None

    def __enter__(self) -> Self:
        """Bind or connect."""
        self._inlet = open_inlet(self._spec, self._security)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; the loop over frames ends."""
        self._opened().close()

    def _opened(self) -> Inlet:
        if self._inlet is None:
            raise SourceError(f"{self._spec} is not open: use it in a with statement")
        return self._inlet

    @property
    def address(self) -> str:
        """Where it listens or calls, with the port that the system chose."""
        return self._opened().link.endpoint.address

    @property
    def frame_count(self) -> int | None:
        """Nobody can know."""
        return None

    def stats(self) -> dict[str, int]:
        """Counts of what came; see `InletStats`."""
        return self._opened().stats.as_dict()

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the sender ends its stream or this source is closed.

        Raises:
            SourceError: the sender sent no frame for `timeout_s`.
        """
        inlet, heard_s = self._opened(), time.monotonic()
        while not inlet.closed:
            arrived = inlet.get(_SLICE_S)
            if arrived is None:
                self._check_silence(time.monotonic() - heard_s)
                continue
            try:
                if peek(arrived[1])[0] == KIND_END:
                    return
                frame = decode_frame(arrived[1]).frame
            except WireError as error:
                inlet.refuse(error)
                self._check_silence(time.monotonic() - heard_s)
                continue
            heard_s = time.monotonic()
            # The sender's monotonic clock means nothing on another machine.
            yield replace(frame, stream=self.name, captured_ns=time.monotonic_ns())

    def _check_silence(self, silent_s: float) -> None:
        if silent_s > self._timeout_s:
            raise SourceError(f"no frame came to {self._spec} for {self._timeout_s:g} s")
