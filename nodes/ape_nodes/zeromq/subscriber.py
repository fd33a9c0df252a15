"""Results in over ZeroMQ: `for result in ape_nodes.subscribe("tcp://127.0.0.1:5557")`."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Self

from ape_nodes.zeromq.receiver import open_inlet
from ape_nodes.zeromq.socket import Security
from ape_stream.errors import SourceError, WireError
from ape_stream.wire import decode_result

if TYPE_CHECKING:
    from types import TracebackType

    from ape_stream.wire import WireResult

__all__ = ["ResultReader", "subscribe"]

_SLICE_S = 0.2


class ResultReader:
    """An endless iterator over results; closes with `with`, `close()` or at its collection.

    Senders may come late, die and come back: it waits. Counts are in `stats()`.
    """

    def __init__(
        self, endpoint: str, streams: tuple[str, ...], security: Security, timeout_s: float | None
    ) -> None:
        self._timeout_s = timeout_s
        self._inlet = open_inlet(endpoint, security, streams)
        # The inlet's thread knows the inlet, not this reader: so a forgotten reader is collected.
        self._at_collection = weakref.finalize(self, self._inlet.close)

    @property
    def address(self) -> str:
        """Where it listens or calls, with the port that the system chose."""
        return self._inlet.link.endpoint.address

    def stats(self) -> dict[str, int]:
        """Counts of what came; see `InletStats`."""
        return self._inlet.stats.as_dict()

    def __iter__(self) -> Self:
        """Itself."""
        return self

    def __next__(self) -> WireResult:
        """The next result (mode every), or the newest of a stream (mode latest).

        Raises:
            SourceError: nothing came for `timeout_s`.
            WireError: a message of ours is damaged (counted as refused); the next call goes on
                after it.
        """
        asked_s = time.monotonic()
        while not self._inlet.closed:
            arrived = self._inlet.get(_SLICE_S)
            if arrived is not None:
                return self._decode(arrived[1])
            waited_s = time.monotonic() - asked_s
            if self._timeout_s is not None and waited_s > self._timeout_s:
                raise SourceError(
                    f"no result came from {self._inlet.link.endpoint} for {self._timeout_s:g} s:"
                    " is the sender running?"
                )
        raise StopIteration

    def _decode(self, message: bytes) -> WireResult:
        try:
            return decode_result(message)
        except WireError as error:
            self._inlet.refuse(error)
            raise

    def close(self) -> None:
        """Close the socket; a loop in another thread ends."""
        self._at_collection()

    def __enter__(self) -> Self:
        """It is open from the start."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def subscribe(
    endpoint: str,
    *streams: str,
    keys: str | None = None,
    public: bool = False,
    timeout_s: float | None = None,
) -> ResultReader:
    """Read the results that a `zmq` sink sends.

    Args:
        endpoint: `tcp://127.0.0.1:5557` for the newest results of a pub sink; `pull+connect:...`
            for a push sink, `dealer+connect:...` for a router sink, `router+bind:...` for a
            dealer sink: then every result comes, in order.
        streams: Names of the streams wanted (pub sinks only); none means all.
        keys: Folder made by `ape-stream keys`.
        public: True allows an unencrypted bind that other machines reach.
        timeout_s: Raise SourceError after so long without a result; None waits for ever.

    Returns:
        An iterator over results, each a `FrameResult` with `envelope` and `has_image`.

    Raises:
        ConfigError: the endpoint cannot be used, or is public and unguarded.
    """
    return ResultReader(endpoint, streams, Security.of(keys, public=public), timeout_s)
