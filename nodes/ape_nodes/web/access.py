"""Who may do what: tokens, roles, sessions, and the checks of Host and Origin.

A browser sends the cookie of this server with requests that other pages make, and other names may
be made to resolve to this address. So a cookie counts only together with an Origin that equals the
Host, and the Host must be one that this server goes by (against DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import socket
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiohttp import web

from ape_nodes.reach import is_loopback
from ape_stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Access", "Role", "Tokens", "check_reach", "rate_limit"]

SESSIONS: Final = 64
"""Cookies that are valid at one time; the oldest ends first."""
FAILURES: Final = 10
"""Wrong tokens from one address within a minute; then all of its requests with one are refused."""
_MINUTE_S: Final = 60.0
_SAFE: Final = ("GET", "HEAD")
_MIN_TOKEN: Final = 16


class Role(IntEnum):
    """What somebody may do; each may also do what those before it may."""

    NOBODY = 0
    VIEW = 1
    CONTROL = 2


@dataclass(frozen=True, slots=True)
class Tokens:
    """The two secrets."""

    view: str
    control: str

    @classmethod
    def made(cls) -> Tokens:
        """New ones, 192 bits each."""
        return cls(secrets.token_urlsafe(24), secrets.token_urlsafe(24))

    @classmethod
    def of(cls, path: str | None) -> Tokens:
        """Those of a file (control in the first line, view in the second); made if it is missing.

        Raises:
            ConfigError: the file cannot be used, or others may read it.
        """
        if path is None:
            return cls.made()
        file = Path(path).expanduser()
        try:
            if not file.exists():
                made = cls.made()
                with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:  # noqa: PTH123 (with its mode)
                    out.write(f"{made.control}\n{made.view}\n")
                return made
            if os.name == "posix" and file.stat().st_mode & 0o077:
                raise ConfigError(f"{path}: others may read these tokens: chmod 600 {path}")
            lines = file.read_text("utf-8").split()
        except OSError as error:
            raise ConfigError(f"cannot use {path}: {error.strerror or error}") from error
        if len(lines) != 2 or lines[0] == lines[1] or any(len(line) < _MIN_TOKEN for line in lines):
            raise ConfigError(
                f"{path} holds no tokens: two lines, control and view, {_MIN_TOKEN} characters each"
            )
        return cls(view=lines[1], control=lines[0])


class Access:
    """Decides over every request.

    Args:
        tokens: The two secrets.
        hosts: Further names under which the server is reached, as by a proxy.
        cookie: Name of the cookie; servers on other ports of this host need another one.
        secure: True where the server speaks TLS: the cookie then never goes over plain HTTP.
    """

    def __init__(
        self, tokens: Tokens, hosts: Iterable[str] = (), *, cookie: str, secure: bool
    ) -> None:
        self._tokens = tokens
        name = socket.gethostname().lower()
        self._hosts = {"localhost", name, f"{name}.local", *(host.lower() for host in hosts)}
        self._cookie = cookie
        self._secure = secure
        self._sessions: OrderedDict[str, Role] = OrderedDict()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, request: web.Request, needed: Role) -> Role:
        """The role of whoever asks.

        Raises:
            web.HTTPException: 401 without a valid token, 403 for a foreign page, a foreign name
                of this server or too low a role, 429 after too many wrong tokens.
        """
        self._check_host(request)
        self._check_origin(request)
        if needed is Role.NOBODY:
            return Role.NOBODY
        role = self._role(request)
        if role is Role.NOBODY:
            raise web.HTTPUnauthorized(text="a token is needed")
        if role < needed:
            raise web.HTTPForbidden(text="this token may look, not change anything")
        return role

    def open_session(self, request: web.Request, token: str) -> web.Response:
        """Exchange a token for a cookie.

        Raises:
            web.HTTPException: 401 for a wrong token, 429 after too many.
        """
        role = self._role_of(request, token)
        if role is Role.NOBODY:
            raise web.HTTPUnauthorized(text="this is no token of this server")
        session = secrets.token_urlsafe(24)
        self._sessions[session] = role
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        answer = web.json_response({"role": role.name.lower()})
        answer.set_cookie(
            self._cookie, session, httponly=True, samesite="Strict", secure=self._secure
        )
        return answer

    def _check_host(self, request: web.Request) -> None:
        # Without one aiohttp would look up this machine's name, and everybody would wait for that.
        if "Host" not in request.headers:
            raise web.HTTPBadRequest(text="a request names its host")
        name = _host_name(request.host)
        # An address is no name: nobody can make it resolve to something else.
        if name not in self._hosts and not _is_address(name):
            raise web.HTTPForbidden(text="this server does not go by that name")

    def _check_origin(self, request: web.Request) -> None:
        socket_opens = request.headers.get("Upgrade", "").lower() == "websocket"
        if request.method in _SAFE and not socket_opens:
            return
        origin = request.headers.get("Origin")
        if origin is None:
            # No browser: then a token in the header, which no other page can make a browser send.
            if "Authorization" not in request.headers:
                raise web.HTTPForbidden(text="a request without Origin needs a token in its header")
        elif origin.lower().partition("://")[2] != request.host.lower():
            raise web.HTTPForbidden(text="this page is of another origin")

    def _role(self, request: web.Request) -> Role:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._role_of(request, token.strip())
        return self._sessions.get(request.cookies.get(self._cookie, ""), Role.NOBODY)

    def _role_of(self, request: web.Request, token: str) -> Role:
        peer = request.remote or ""
        failures = self._failures.get(peer, deque())
        now = time.monotonic()
        while failures and failures[0] < now - _MINUTE_S:
            failures.popleft()
        if len(failures) >= FAILURES:
            raise web.HTTPTooManyRequests(text="too many wrong tokens: wait a minute")
        given = token.encode("utf-8", "surrogatepass")  # headers may hold any byte, JSON any code
        # Both are compared, each in a time that does not depend on where they differ.
        control = hmac.compare_digest(given, self._tokens.control.encode())
        view = hmac.compare_digest(given, self._tokens.view.encode())
        if control or view:
            return Role.CONTROL if control else Role.VIEW
        failures.append(now)
        self._failures[peer] = failures
        self._failures.move_to_end(peer)
        while len(self._failures) > SESSIONS:
            self._failures.popitem(last=False)
        return Role.NOBODY


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_reach(host: str, *, tls: bool, public: bool) -> None:
    """Refuse an address that other machines reach without encryption, unless that is said.

    Raises:
        ConfigError: it is one.
    """
    if not (is_loopback(host) or tls or public):
        raise ConfigError(
            f"{host} can be reached from other machines: give tls=CERT,KEY (--tls CERT,KEY), or"
            " public=true (--public) to go without encryption"
        )


class rate_limit:  # noqa: N801 (used as a function that remembers)
    """Whether one more event is within `per_s` a second, with bursts of a second's worth."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left = per_s
        self._last = time.monotonic()

    def __call__(self) -> bool:
        """Count an event; False where it is one too many."""
        now = time.monotonic()
        self._left = min(self._per_s, self._left + (now - self._last) * self._per_s)
        self._last = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
