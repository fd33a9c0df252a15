"""Endpoint strings: `pub+bind:tcp://127.0.0.1:5557` says socket, direction and address.

Short forms leave out what has a usual value: `pub:tcp://...` binds, a bare `tcp://...` takes the
kind of socket that its user needs.
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
_BINDS_BY_HABIT: Final = ("pub", "push", "router", "rep")
_FORM: Final = re.compile(
    r"(?:(?P<kind>[a-z]+)(?:\+(?P<direction>bind|connect))?:)?"
    r"(?P<address>(?P<transport>tcp|ipc|inproc)://(?P<place>\S+))"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a ZeroMQ connection."""

    kind: str
    """pub, sub, push, pull, dealer, router, req or rep."""
    binds: bool
    """True where this end listens, False where it calls."""
    address: str
    """`tcp://host:port`, `ipc://path` or `inproc://name`."""

    @classmethod
    def parse(cls, text: str, kinds: tuple[str, ...]) -> Endpoint:
        """Read an endpoint string; one without a kind takes the first of `kinds`.

        Args:
            text: For instance "pub+bind:tcp://127.0.0.1:5557", perhaps after "zmq:" or "zmq://".
            kinds: The socket kinds that make sense here.

        Raises:
            ConfigError: it has another form, or names another kind.
        """
        form = _FORM.fullmatch(text.removeprefix("zmq:").removeprefix("//"))
        if form is None:
            raise ConfigError(
                f"{text!r} is no endpoint: write {kinds[0]}+bind:tcp://127.0.0.1:5557,"
                f" {kinds[0]}+connect:tcp://HOST:PORT or {kinds[0]}+bind:ipc:///tmp/NAME"
            )
        kind = form["kind"] or kinds[0]
        if kind not in kinds:
            raise ConfigError(f"{text!r}: a {kind!r} socket does not do here, use {list(kinds)}")
        if form["transport"] == "tcp" and ":" not in form["place"]:
            raise ConfigError(f"{text!r}: the port is missing")
        habit = kind in _BINDS_BY_HABIT
        binds = habit if form["direction"] is None else form["direction"] == "bind"
        return cls(kind, binds, form["address"])

    @property
    def delivery(self) -> str:
        """`latest` for pub and sub, `every` for the others: the socket kind decides."""
        return "latest" if self.kind in ("pub", "sub") else "every"

    @property
    def is_private(self) -> bool:
        """True where only this machine can reach the address."""
        transport, place = self.address.split("://", 1)
        if transport != "tcp":
            return True
        host = place.split(";")[-1].rsplit(":", 1)[0].strip("[]")
        if host in ("localhost", "lo"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:  # a name, an interface or `*`
            return False

    def at(self, address: str) -> Endpoint:
        """The same end at another address (a port that the system chose)."""
        return replace(self, address=address)

    def __str__(self) -> str:
        return f"{self.kind}+{'bind' if self.binds else 'connect'}:{self.address}"
