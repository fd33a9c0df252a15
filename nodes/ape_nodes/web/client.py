"""Asks a running page's server over its REST addresses, with nothing but the standard library."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from http.client import HTTPConnection, HTTPSConnection
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from ape_stream.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from http.client import HTTPResponse

__all__ = ["TOKEN", "WebClient"]

TOKEN: Final = "APE_STREAM_TOKEN"  # noqa: S105 (the name of a variable)
"""Environment variable that holds the token, where the URL has none."""
_CONNECT_S: Final = 2.0
"""How long the client waits for the connection; an answer may take longer."""
_TIMEOUT_S: Final = 35.0
_OPS: Final = ("get", "set", "status", "stats", "stop")


class _Http(HTTPConnection):
    def connect(self) -> None:
        super().connect()  # within _CONNECT_S
        self.sock.settimeout(_TIMEOUT_S)


class _Https(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(_TIMEOUT_S)


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Connections with one time limit to connect, and another one to answer."""

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_Http, req)

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_Https, req)


class WebClient:
    """A client of the `web:` output, with the operations of the control socket.

    Args:
        url: `http://127.0.0.1:8008`, or the whole URL that the server printed, with its token.

    Raises:
        ConfigError: there is no token.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no address of a live page: http://HOST:PORT")
        token = parse_qs(parts.fragment).get("t", [os.environ.get(TOKEN, "")])[0]
        if not token:
            raise ConfigError(
                f"{parts.scheme}://{parts.netloc} needs a token: give the URL as it was printed"
                f" (with #t=...), or set {TOKEN}"
            )
        self._base = f"{parts.scheme}://{parts.netloc}"
        self._token = token

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Do one operation: get, set, status, stats or stop.

        Raises:
            ConfigError: it is refused; the message is the reason.
            SourceError: nobody answers there, or no live page.
        """
        if op not in _OPS:
            raise ConfigError(f"op {op!r} is none of {', '.join(_OPS)}")
        match op:
            case "set":
                return self._set(**arguments)
            case "get":
                return self._request("GET", "/api/prompts")
            case "stop":
                return self._request("POST", "/api/stop")
        stats = self._request("GET", "/api/stats")
        return {"stats": stats} if op == "stats" else {"status": "running"}

    def _set(self, prompts: str | None = None, threshold: float | None = None) -> dict[str, Any]:
        present = self._request("GET", "/api/prompts")
        if prompts is not None:
            texts = [text.strip() for text in prompts.split(",") if text.strip()]
            wanted = [{"text": text, "threshold": threshold} for text in texts]
        else:
            wanted = [
                {
                    "text": prompt["text"],
                    "threshold": prompt["threshold"] if threshold is None else threshold,
                    "enabled": prompt["enabled"],
                    "color": prompt["color"],
                }
                for prompt in present["prompts"]
            ]
        # With the revision: an edit that somebody makes meanwhile is not lost in silence.
        return self._request("PUT", "/api/prompts", prompts=wanted, base_rev=present["rev"])

    def _request(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 (http or https, see above)
            self._base + path,
            data=json.dumps(fields).encode() if fields else None,
            method=method,
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            opener = urllib.request.build_opener(_Handler)
            with opener.open(request, timeout=_CONNECT_S) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ConfigError(_reason(error)) from error
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise SourceError(f"nobody answers at {self._base}: {reason}") from error
        except ValueError as error:
            raise SourceError(f"what answers at {self._base} is no live page") from error
        if not isinstance(found, dict):
            raise SourceError(f"what answers at {self._base} is no live page")
        return found


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["reason"])
    except (ValueError, KeyError, TypeError):
        return f"status {error.code}"
