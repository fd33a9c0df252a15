"""The sockets that the server listens at: how many connections there may be, in all and of one.

Connections are counted where they are accepted and closed, below TLS and HTTP: whoever says nothing
counts as well.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CONNECTIONS", "CONNECTIONS_OF_ONE", "Connections", "listening"]

CONNECTIONS: Final = 256
"""Connections at one time; each needs a file descriptor, of which a process often has 1024."""
CONNECTIONS_OF_ONE: Final = 64
"""Those of one address; a browser opens up to 7, and all who come by a proxy have its address."""
UNREAD_S: Final = 30
"""Seconds for which a peer may leave unread, or unacknowledged, what was sent to it."""
_WAITING: Final = 128
"""Connections that the system keeps until they are accepted."""
_log = logging.getLogger("ape_stream")


class Connections:
    """Counts the open connections.

    Args:
        most: In all.
        most_of_one: Of one address; of IPv6 the first 64 bits count, for a host has all others.
    """

    def __init__(self, most: int = CONNECTIONS, most_of_one: int = CONNECTIONS_OF_ONE) -> None:
        self.refused = 0
        self._most = most
        self._most_of_one = most_of_one
        self._open: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._open.total()

    def enter(self, address: str) -> str | None:
        """Count a connection; returns whose it is, or None where it is one too many."""
        whose = _whose(address)
        if len(self) >= self._most or self._open[whose] >= self._most_of_one:
            self.refused += 1
            if self.refused % 100 == 1:  # a flood of connections must not flood the log
                _log.warning(
                    "too many connections: %d refused so far, now of %s", self.refused, whose
                )
            return None
        self._open[whose] += 1
        return whose

    def leave(self, whose: str) -> None:
        """A connection was closed."""
        self._open[whose] -= 1
        if not self._open[whose]:
            del self._open[whose]


def _whose(address: str) -> str:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(ipaddress.ip_network((parsed, 64), strict=False) if mapped is None else mapped)


class _Connection(socket.socket):
    """An accepted socket that is counted until it is closed."""

    def __init__(self, accepted: socket.socket, connections: Connections, whose: str) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._leave: tuple[Connections, str] | None = (connections, whose)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A closed connection stays until what was written to it is read: not for ever.
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNREAD_S)

    def close(self) -> None:
        """Close the socket."""
        super().close()
        if self._leave is not None:
            (connections, whose), self._leave = self._leave, None
            connections.leave(whose)


class _Listener(socket.socket):
    """A listening socket that refuses connections beyond the limits."""

    def __init__(self, bound: socket.socket, connections: Connections) -> None:
        super().__init__(bound.family, bound.type, bound.proto, bound.detach())
        self._connections = connections

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection.

        Raises:
            ConnectionAbortedError: it is one too many; an event loop then goes on with others.
        """
        accepted, address = super().accept()
        whose = self._connections.enter(address[0])
        if whose is None:
            accepted.close()
            raise ConnectionAbortedError("too many connections")
        return _Connection(accepted, self._connections, whose), address


def listening(host: str, port: int, connections: Connections) -> Sequence[socket.socket]:
    """Sockets that listen at every address of a name.

    Args:
        host: Address or name.
        port: 0 lets the system choose; all addresses then have the same.
        connections: Counts and limits what is accepted.

    Raises:
        OSError: an address cannot be bound.
    """
    found: list[socket.socket] = []
    try:
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            chosen = found[0].getsockname()[1] if found else port
            try:
                bound = socket.create_server(
                    (address[0], chosen, *address[2:]), family=family, backlog=_WAITING
                )
            except OSError as error:
                # A machine without IPv6 may know localhost as ::1 all the same.
                if error.errno != errno.EADDRNOTAVAIL or not found:
                    raise
                continue
            found.append(_Listener(bound, connections))
    except OSError:
        for bound in found:
            bound.close()
        raise
    return found
