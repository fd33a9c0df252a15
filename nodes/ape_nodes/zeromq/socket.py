"""Opening and closing sockets: safe by default, bounded in time, nothing left behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from ape_stream.errors import ConfigError

if TYPE_CHECKING:
    from ape_nodes.zeromq.endpoint import Endpoint

__all__ = ["Link", "Security", "make_keys", "open_link", "worth_telling"]

_KINDS: Final = {
    "pub": zmq.XPUB,  # it hears who subscribes
    "sub": zmq.SUB,
    "push": zmq.PUSH,
    "pull": zmq.PULL,
    "dealer": zmq.DEALER,
    "router": zmq.ROUTER,
    "req": zmq.REQ,
    "rep": zmq.ROUTER,  # a REP loses an answer after a peer that sent nonsense and went
}
SERVER, CLIENT = "server", "client"
_KEY_CHARS: Final = 40


@dataclass(frozen=True, slots=True)
class Security:
    """How a socket is guarded."""

    keys: Path | None = None
    """Folder made by `ape-stream keys`: the binding end reads server.key_secret and lets in the
    public keys under clients/; the connecting end reads client.key_secret and server.key."""
    public: bool = False
    """True allows a bind that other machines reach without encryption."""

    @classmethod
    def of(cls, keys: str | None, *, public: bool) -> Security:
        """Take the options as users give them."""
        return cls(None if keys is None else Path(keys).expanduser(), public)


class Link:
    """A socket in a context of its own; `close` ends both within `linger_s`."""

    def __init__(self, endpoint: Endpoint, security: Security) -> None:
        _check_reach(endpoint, security)
        self.endpoint = endpoint
        self._context: zmq.Context[Any] = zmq.Context()
        self._guard: ThreadAuthenticator | None = None
        self.socket: zmq.Socket[bytes] = self._context.socket(_KINDS[endpoint.kind])
        self.socket.linger = 0
        if security.keys is not None:
            try:
                self._secure(security.keys)
            except Exception:
                self.close()
                raise

    def _secure(self, folder: Path) -> None:
        role = SERVER if self.endpoint.binds else CLIENT
        public, secret = _read_keys(folder / f"{role}.key_secret")
        if secret is None:
            raise ConfigError(f"{folder / role}.key_secret holds no secret key")
        self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
        if self.endpoint.binds:
            _check_clients(folder / "clients")
            self._guard = ThreadAuthenticator(self._context)
            self._guard.start()
            self._guard.configure_curve(domain="*", location=str(folder / "clients"))
            self.socket.curve_server = True
        else:
            self.socket.curve_serverkey = _read_keys(folder / "server.key")[0]

    def attach(self) -> None:
        """Bind or connect.

        Raises:
            ConfigError: the address is taken, unknown or malformed.
        """
        verb = "bind to" if self.endpoint.binds else "connect to"
        try:
            if self.endpoint.binds:
                self.socket.bind(self.endpoint.address)
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
        if self._guard is not None:
            self._guard.stop()
        self._context.term()


def open_link(
    endpoint: Endpoint, security: Security, *, high_water: int, options: dict[int, int | bytes]
) -> Link:
    """Open a socket and bind or connect it.

    Args:
        endpoint: Which kind, where.
        security: Keys, or the leave to go without.
        high_water: Messages that may wait on either way, per peer.
        options: Further socket options by number.

    Raises:
        ConfigError: the address cannot be used, or is public and unguarded.
    """
    link = Link(endpoint, security)
    try:
        link.socket.set_hwm(high_water)
        link.socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        link.socket.setsockopt(zmq.RECONNECT_IVL, 100)
        link.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        link.socket.setsockopt(zmq.IPV6, int("[" in endpoint.address))
        for option, value in options.items():
            link.socket.setsockopt(option, value)
        link.attach()
    except Exception:
        link.close()
        raise
    return link


def worth_telling(count: int) -> bool:
    """Whether the so-manieth strange message is logged: a flood of them must not flood the log."""
    return count in (1, 10, 100) or count % 1000 == 0


def _check_reach(endpoint: Endpoint, security: Security) -> None:
    if endpoint.binds and not (endpoint.is_private or security.keys or security.public):
        raise ConfigError(
            f"{endpoint.address} can be reached from other machines: give keys=FOLDER"
            " (make one with `ape-stream keys FOLDER`), or public=true to go without encryption"
        )


def _check_clients(folder: Path) -> None:
    """One file that is no key would shut out everybody, without a word."""
    admitted = sorted(folder.glob("*.key"))
    if not admitted:
        raise ConfigError(f"{folder} admits nobody: put the clients' public keys there")
    for path in admitted:
        _read_keys(path)


def _read_keys(path: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise _no_keys(path) from error
    if not (_is_key(public) and (secret is None or _is_key(secret))):
        raise _no_keys(path)
    return public, secret


def _is_key(text: bytes) -> bool:
    """Whether this is 32 bytes in Z85."""
    return len(text) == _KEY_CHARS and not set(text) - set(z85.Z85CHARS)


def _no_keys(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read: make a folder of keys with `ape-stream keys {path.parent}`"
    )


def make_keys(folder: Path) -> list[Path]:
    """Make the CURVE key pairs of one server and one client; existing ones are never replaced.

    Returns:
        The files written: server and client pairs, and the client's public key under clients/.

    Raises:
        ConfigError: the folder holds keys already, or cannot be written.
    """
    if any(folder.glob("*.key*")):
        raise ConfigError(f"{folder} holds keys already: choose another folder or remove them")
    clients = folder / "clients"
    try:
        clients.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = [Path(p) for role in (SERVER, CLIENT) for p in _make_pair(folder, role)]
        admitted = clients / "client.key"
        admitted.write_bytes((folder / "client.key").read_bytes())
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error}") from error
    return [*written, admitted]


def _make_pair(folder: Path, role: str) -> tuple[str, str]:
    secret = folder / f"{role}.key_secret"
    secret.touch(mode=0o600)  # before the secret is in it
    return zmq.auth.create_certificates(folder, role)
