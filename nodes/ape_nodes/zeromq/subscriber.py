"""Results in over ZeroMQ: `for result in ape_nodes.subscribe("tcp://127.0.0.1:5557")`."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Self

from ape_nodes.zeromq.receiver import open_receiver
from ape_nodes.zeromq.socket import Security
from ape_stream.closing import Closing
from ape_stream.errors import SourceError, WireError
from ape_stream.wire import decode_result

if TYPE_CHECKING:
    from ape_stream.wire import WireResult

__all__ = ["ResultReader", "subscribe"]

_POLL_S = 0.2
"""Of one wait, after which it looks whether it is to end."""


class ResultReader(Closing):
    """An endless iterator over results; `with`, `close()` or its garbage collection closes it.

    It waits for senders that start late, die or start again. Counts are in `stats()`.
    """

    def __init__(
        self, endpoint: str, streams: tuple[str, ...], security: Security, timeout_s: float | None
    ) -> None:
        self._timeout_s = timeout_s
        self._receiver = open_receiver(endpoint, security, streams)
        # The receiver's thread refers to the receiver only, so a reader that nobody closed is
        # still collected, and then closed here.
        self._finalizer = weakref.finalize(self, self._receiver.close)

    @property
    def address(self) -> str:
        """Where it is bound or connected to, with the port that the system chose."""
        return self._receiver.connection.endpoint.address

    def stats(self) -> dict[str, int]:
        """Counts of what arrived; see `ReceiverStats`."""
        return self._receiver.stats.as_dict()

    def __iter__(self) -> Self:
        """Itself."""
        return self

    def __next__(self) -> WireResult:
        """The next result (delivery every), or the newest of a stream (delivery latest).

        Raises:
            SourceError: nothing came for `timeout_s`.
            WireError: a result is damaged (counted as refused); the next call returns the one
                after it.
        """
        asked_s = time.monotonic()
        while not self._receiver.closed:
            arrival = self._receiver.get(_POLL_S)
            if arrival is not None:
                return self._decode(arrival[1])
            waited_s = time.monotonic() - asked_s
            if self._timeout_s is not None and waited_s > self._timeout_s:
                raise SourceError(
                    f"no result came from {self._receiver.connection.endpoint} for"
                    f" {self._timeout_s:g} s: is the sender running?"
                )
        raise StopIteration

    def _decode(self, message: bytes) -> WireResult:
        try:
            return decode_result(message)
        except WireError as error:
            self._receiver.refuse(error)
            raise

    def close(self, _error: BaseException | None = None, /) -> None:
        """Close the socket; a loop in another thread ends."""
        self._finalizer()


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
        An iterator over results, each a `FrameResult` with `envelope`, `has_image` and `label_map`.

    Raises:
        ConfigError: the endpoint cannot be used, or is public and unguarded.
    """
    return ResultReader(endpoint, streams, Security.of(keys, public=public), timeout_s)
