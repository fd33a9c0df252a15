"""CURVE key pairs of ZeroMQ, kept in a folder that `ape-stream keys` makes.

The binding end reads server.key_secret and admits the public keys under clients/; the connecting
end reads client.key_secret and server.key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import zmq.auth
from zmq.utils import z85

from ape_stream.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_clients", "make_keys", "read_key_pair", "read_public_key"]

SERVER, CLIENT = "server", "client"
_KEY_CHARS: Final = 40  # 32 bytes in Z85


def make_keys(folder: Path) -> list[Path]:
    """Make the key pairs of one server and one client; existing keys are never replaced.

    Returns:
        The files written: both pairs, and the client's public key under clients/.

    Raises:
        ConfigError: the folder holds keys already, or cannot be written.
    """
    if any(folder.glob("*.key*")):
        raise ConfigError(f"{folder} holds keys already: choose another folder or remove them")
    clients = folder / "clients"
    try:
        clients.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = [path for role in (SERVER, CLIENT) for path in _make_pair(folder, role)]
        # One client is admitted from the start: the folder works as it is.
        admitted = clients / "client.key"
        admitted.write_bytes((folder / "client.key").read_bytes())
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from error
    return [*written, admitted]


def _make_pair(folder: Path, role: str) -> list[Path]:
    secret = folder / f"{role}.key_secret"
    secret.touch(mode=0o600)  # private before the secret is written into it
    zmq.auth.create_certificates(folder, role)
    return [folder / f"{role}.key", secret]


def read_key_pair(folder: Path, *, binds: bool) -> tuple[bytes, bytes]:
    """Public and secret key of the binding or of the connecting end.

    Raises:
        ConfigError: the file cannot be read or holds no secret key.
    """
    path = folder / f"{SERVER if binds else CLIENT}.key_secret"
    public, secret = _load(path)
    if secret is None:
        raise ConfigError(f"{path} holds no secret key")
    return public, secret


def read_public_key(path: Path) -> bytes:
    """The public key in a file.

    Raises:
        ConfigError: the file cannot be read or holds no key.
    """
    return _load(path)[0]


def check_clients(folder: Path) -> None:
    """Check that every admitted key can be read: pyzmq skips a whole folder for one bad file.

    Raises:
        ConfigError: the folder holds no key, or a file that is not a key.
    """
    admitted = sorted(folder.glob("*.key"))
    if not admitted:
        raise ConfigError(f"{folder} admits nobody: put the clients' public keys there")
    for path in admitted:
        _load(path)


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path) from error
    if not (_is_key(public) and (secret is None or _is_key(secret))):
        raise _unreadable(path)
    return public, secret


def _is_key(text: bytes) -> bool:
    return len(text) == _KEY_CHARS and not set(text) - set(z85.Z85CHARS)


def _unreadable(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read: make a folder of keys with `ape-stream keys {path.parent}`"
    )
