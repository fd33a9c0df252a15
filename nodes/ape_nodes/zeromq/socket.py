"""Opens and closes sockets: safe by default, bounded in time, nothing left open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import zmq
from zmq.auth.thread import ThreadAuthenticator

from ape_nodes.zeromq.keys import check_clients, read_key_pair, read_public_key
from ape_stream.errors import ConfigError

if TYPE_CHECKING:
    from ape_nodes.zeromq.endpoint import Endpoint

__all__ = ["Connection", "Security", "open_connection", "should_log"]

_KINDS: Final = {
    "pub": zmq.XPUB,  # unlike PUB it receives the subscriptions
    "sub": zmq.SUB,
    "push": zmq.PUSH,
    "pull": zmq.PULL,
    "dealer": zmq.DEALER,
    "router": zmq.ROUTER,
    "req": zmq.REQ,
    "rep": zmq.ROUTER,  # a REP drops a reply when a peer sent garbage and disconnected before
}


@dataclass(frozen=True, slots=True)
class Security:
    """How a socket is guarded."""

    keys: Path | None = None
    """Folder made by `ape-stream keys`; None: no encryption."""
    public: bool = False
    """True allows a bind that other machines reach without encryption."""

    @classmethod
    def of(cls, keys: str | None, *, public: bool) -> Security:
        """Take the options as users give them."""
        return cls(None if keys is None else Path(keys).expanduser(), public)


class Connection:
    """A socket in a context of its own; `close` ends both within `linger_s`."""

    def __init__(self, endpoint: Endpoint, security: Security) -> None:
        _check_reach(endpoint, security)
        self.endpoint = endpoint
        # Ending a context waits for all its sockets: with one each, no socket can block another.
        self._context: zmq.Context[Any] = zmq.Context()
        self._authenticator: ThreadAuthenticator | None = None
        self.socket: zmq.Socket[bytes] = self._context.socket(_KINDS[endpoint.kind])
        self.socket.linger = 0  # until `close` says otherwise: an early error must not wait
        if security.keys is not None:
            try:
                self._secure(security.keys)
            except Exception:
                self.close()
                raise

    def _secure(self, folder: Path) -> None:
        """Encrypt with CURVE; the binding end also checks who connects (ZAP)."""
        binds = self.endpoint.binds
        public, secret = read_key_pair(folder, binds=binds)
        self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
        if binds:
            check_clients(folder / "clients")
            self._authenticator = ThreadAuthenticator(self._context)
            self._authenticator.start()
            # Only clients whose public key is a file in this folder pass the handshake.
            self._authenticator.configure_curve(domain="*", location=str(folder / "clients"))
            self.socket.curve_server = True
        else:
            self.socket.curve_serverkey = read_public_key(folder / "server.key")

    def attach(self) -> None:
        """Bind or connect.

        Raises:
            ConfigError: the address is in use, unknown or malformed.
        """
        verb = "bind to" if self.endpoint.binds else "connect to"
        try:
            if self.endpoint.binds:
                self.socket.bind(self.endpoint.address)
                # With port `*` the system chose one: this is where clients find it.
                bound = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
                self.endpoint = self.endpoint.at(bound.rstrip("\0"))
            else:
                self.socket.connect(self.endpoint.address)
        except zmq.ZMQError as error:
            raise ConfigError(f"cannot {verb} {self.endpoint.address}: {error}") from error

    def close(self, linger_s: float = 0.0) -> None:
        """Close the socket, waiting at most `linger_s` for what is still to be sent."""
        if self._context.closed:
            return
        self.socket.close(linger=round(1000 * linger_s))
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()


def open_connection(
    endpoint: Endpoint, security: Security, *, high_water: int, options: dict[int, int | bytes]
) -> Connection:
    """Open a socket and bind or connect it.

    Args:
        endpoint: Socket kind, direction and address.
        security: Keys, or permission to go without.
        high_water: Messages that may queue in each direction, per peer.
        options: Further socket options by number.

    Raises:
        ConfigError: the address cannot be used, or is public and unguarded.
    """
    connection = Connection(endpoint, security)
    socket = connection.socket
    try:
        socket.set_hwm(high_water)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)  # notices a peer whose machine vanished
        # From 0.1 s between attempts, doubled up to 2 s: quick after a restart, quiet later.
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        # An IPv6 socket also takes IPv4, but not on a machine without IPv6.
        socket.setsockopt(zmq.IPV6, int("[" in endpoint.address))
        for option, value in options.items():
            socket.setsockopt(option, value)
        connection.attach()
    except Exception:
        connection.close()
        raise
    return connection


def should_log(count: int) -> bool:
    """Whether to log the `count`-th event of a kind: the 1st, 10th, 100th and every 1000th.

    A flood of invalid messages must not flood the log.
    """
    return count in (1, 10, 100) or count % 1000 == 0


def _check_reach(endpoint: Endpoint, security: Security) -> None:
    if endpoint.binds and not (endpoint.is_private or security.keys or security.public):
        raise ConfigError(
            f"{endpoint.address} can be reached from other machines: give keys=FOLDER (made by"
            " `ape-stream keys FOLDER`), or public=true to go without encryption; on the command"
            " line --keys FOLDER or --public"
        )
