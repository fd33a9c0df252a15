"""Endpoint strings: `pub+bind:tcp://127.0.0.1:5557` gives socket kind, direction and address.

The kind and the direction may be left out: `pub:tcp://...` binds, and a bare `tcp://...` takes the
socket kind that its user needs.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Final

from ape_stream.errors import ConfigError

__all__ = ["Endpoint"]

SENDING: Final = ("pub", "push", "dealer", "router")
RECEIVING: Final = ("sub", "pull", "dealer", "router")
_BINDS_BY_DEFAULT: Final = ("pub", "push", "router", "rep")
# [KIND[+DIRECTION]:]TRANSPORT://LOCATION; the kind is optional, so is its direction.
_FORM: Final = re.compile(
    r"(?:(?P<kind>[a-z]+)(?:\+(?P<direction>bind|connect))?:)?"
    r"(?P<address>(?P<transport>tcp|ipc|inproc)://(?P<location>\S+))"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a ZeroMQ connection."""

    kind: str
    """pub, sub, push, pull, dealer, router, req or rep."""
    binds: bool
    """True where this end binds, False where it connects."""
    address: str
    """`tcp://host:port`, `ipc://path` or `inproc://name`."""

    @classmethod
    def parse(cls, text: str, kinds: tuple[str, ...]) -> Endpoint:
        """Read an endpoint string; one without a kind takes the first of `kinds`.

        Args:
            text: For instance "pub+bind:tcp://127.0.0.1:5557"; "zmq:" or "zmq://" may precede it.
            kinds: The socket kinds that can be used here.

        Raises:
            ConfigError: the text has another form, or names another kind.
        """
        form = _FORM.fullmatch(text.removeprefix("zmq:").removeprefix("//"))
        if form is None:
            raise ConfigError(
                f"{text!r} is not an endpoint: write {kinds[0]}+bind:tcp://127.0.0.1:5557,"
                f" {kinds[0]}+connect:tcp://HOST:PORT or {kinds[0]}+bind:ipc:///tmp/NAME"
            )
        kind = form["kind"] or kinds[0]
        if kind not in kinds:
            raise ConfigError(
                f"{text!r}: a {kind!r} socket cannot be used here; use {', '.join(kinds)}"
            )
        if form["transport"] == "tcp" and ":" not in form["location"]:
            raise ConfigError(f"{text!r}: the port is missing")
        direction = form["direction"] or ("bind" if kind in _BINDS_BY_DEFAULT else "connect")
        return cls(kind, direction == "bind", form["address"])

    @property
    def delivery(self) -> str:
        """`latest` for pub and sub, `every` for the others: the socket kind decides."""
        return "latest" if self.kind in ("pub", "sub") else "every"

    @property
    def is_private(self) -> bool:
        """True where only this machine can reach the address."""
        transport, location = self.address.split("://", 1)
        if transport != "tcp":
            return True
        # ZeroMQ's form is [source;]host:port, where an IPv6 host stands in brackets.
        host = location.split(";")[-1].rsplit(":", 1)[0].strip("[]")
        if host in ("localhost", "lo"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:  # a host name, a network interface or `*`
            return False

    def at(self, address: str) -> Endpoint:
        """The same end at another address (with the port that the system chose)."""
        return replace(self, address=address)

    def __str__(self) -> str:
        return f"{self.kind}+{'bind' if self.binds else 'connect'}:{self.address}"
