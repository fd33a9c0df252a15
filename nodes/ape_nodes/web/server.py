"""The HTTP server of the page: one table of routes, one wrapper for rights and errors."""

from __future__ import annotations

import asyncio
import logging
import threading
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from aiohttp import http_exceptions, web

from ape_nodes.web import protocol, rest
from ape_nodes.web.access import Role
from ape_nodes.web.browser_camera import MAX_BYTES
from ape_nodes.web.conversation import Conversation
from ape_nodes.web.hub import MAX_VIEWERS
from ape_nodes.web.listening import Connections, listening
from ape_nodes.web.prompts import ConflictError, one_line
from ape_nodes.web.rest import Answer, Route
from ape_stream.errors import ApeStreamError, ConfigError, UsageError

if TYPE_CHECKING:
    import ssl

    from ape_nodes.web.access import Access
    from ape_nodes.web.hub import Hub

__all__ = ["ROUTES", "Server", "application", "handler"]

MAX_BODY: Final = 65_536
SHUTDOWN_S: Final = 1.0
"""Seconds that open connections have to end; a stopped viewer would hold them for a minute."""
PING_S: Final = 15.0
IDLE_S: Final = 10.0
"""Seconds for the head of a request, from the connection or the last answer on."""
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self'"
    " blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TYPES: Final = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml",
    ".png": "image/png", ".ico": "image/x-icon", ".webmanifest": "application/manifest+json",
}  # fmt: skip
_log = logging.getLogger("ape_stream.web")


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a logged error is the server's: whoever sends no HTTP must not fill the log."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, http_exceptions.HttpProcessingError)


_log.addFilter(_is_ours)


def _static_files() -> dict[str, tuple[bytes, str]]:
    """Every file of the page by its address, with its type; read once: no path is ever joined."""
    found: dict[str, tuple[bytes, str]] = {}
    waiting = [(files("ape_nodes.web") / "static", "")]
    while waiting:
        folder, prefix = waiting.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                waiting.append((entry, f"{prefix}{entry.name}/"))
            elif (kind := _TYPES.get(entry.name[entry.name.rfind(".") :])) is not None:
                found[f"/{prefix}{entry.name}"] = (entry.read_bytes(), kind)
    found["/"] = found["/index.html"]
    return found


async def _session(request: web.Request, _hub: Hub, access: Access) -> web.StreamResponse:
    """Exchange a token for a cookie."""
    given = await rest.body(request)
    token = given.get("token")
    return access.open_session(request, token if isinstance(token, str) else "")


async def _socket(request: web.Request, hub: Hub, access: Access) -> web.StreamResponse:
    """The page's WebSocket."""
    if protocol.PROTOCOL not in request.headers.get("Sec-WebSocket-Protocol", ""):
        raise web.HTTPBadRequest(text=f"the subprotocol is {protocol.PROTOCOL}")
    role = access.check(request, Role.VIEW)
    if hub.seats >= MAX_VIEWERS:
        raise web.HTTPServiceUnavailable(text=f"there are {MAX_VIEWERS} viewers already")
    # Without compression: images do not get smaller, and it costs ten times as much as sending.
    ws = web.WebSocketResponse(
        protocols=(protocol.PROTOCOL,), compress=False, max_msg_size=MAX_BYTES, heartbeat=PING_S
    )
    # Taken before the first wait: many that come at once must not all find the last seat free.
    hub.seats += 1
    try:
        await ws.prepare(request)
        await Conversation(hub, ws, role, request.transport).run()
    finally:
        hub.seats -= 1
    return ws


ROUTES: Final = [
    Route("POST", "/api/session", Role.NOBODY, _session),
    Route("GET", "/ws", Role.VIEW, _socket),
    *rest.ROUTES,
]


def handler(route: Route, hub: Hub, access: Access) -> Any:
    """A route's answer behind the checks, with errors as status codes."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            access.check(request, route.needs)
            return await route.answer(request, hub, access)
        except web.HTTPException as refusal:
            return web.json_response({"reason": refusal.text}, status=refusal.status)
        except ConflictError as error:
            return web.json_response({"reason": one_line(error)}, status=409)
        except UsageError as error:
            return web.json_response({"reason": one_line(error)}, status=400)
        except ApeStreamError as error:
            return web.json_response({"reason": one_line(error)}, status=503)

    return handle


def application(hub: Hub, access: Access) -> web.Application:
    """The whole server as an aiohttp application."""
    app = web.Application(client_max_size=MAX_BODY)
    for route in (*ROUTES, *_static_routes()):
        app.router.add_route(route.method, route.path, handler(route, hub, access))

    async def secure(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(_HEADERS)
        response.headers.pop("Server", None)

    app.on_response_prepare.append(secure)
    return app


def _static_routes() -> list[Route]:
    def serve(data: bytes, kind: str) -> Answer:
        async def answer(_request: web.Request, _hub: Hub, _access: Access) -> web.StreamResponse:
            return web.Response(body=data, content_type=kind, charset="utf-8")

        return answer

    return [
        Route("GET", path, Role.NOBODY, serve(data, kind))
        for path, (data, kind) in _static_files().items()
    ]


class Server:
    """Serves a hub in a thread with an event loop of its own.

    Args:
        hub: What is served.
        access: Who may do what.
        host: Address to bind.
        port: 0 lets the system choose.
        tls: Certificate and key, or None for plain HTTP.
    """

    def __init__(
        self, hub: Hub, access: Access, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self.port = port
        self._hub = hub
        self._access = access
        self._host = host
        self._tls = tls
        self.connections = Connections()
        self._ready = threading.Event()
        self._problem: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._why = "the run has ended"
        self._thread = threading.Thread(target=self._run, name="web server", daemon=True)

    def start(self) -> None:
        """Bind and begin to serve.

        Raises:
            ConfigError: the address cannot be bound.
        """
        self._thread.start()
        self._ready.wait()
        if isinstance(self._problem, ApeStreamError):
            raise self._problem
        if self._problem is not None:
            raise ConfigError(
                f"cannot serve at {self._host}:{self.port}: {self._problem}"
            ) from self._problem

    def close(self, why: str) -> None:
        """Say goodbye and end the thread."""
        self._why = why
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(SHUTDOWN_S + 2.0)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._ready.set()
            left = asyncio.all_tasks(self._loop)  # of connections that did not end in time
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left))
            self._loop.close()

    async def _serve(self) -> None:
        runner = web.AppRunner(
            application(self._hub, self._access),
            access_log=None,
            logger=_log,
            auto_decompress=False,  # 200 kB could unpack to 200 MB, while all viewers wait
            shutdown_timeout=SHUTDOWN_S,
            keepalive_timeout=IDLE_S,  # also of a connection whose first request never ends
            handle_signals=False,
        )
        await runner.setup()
        assert runner.server is not None  # noqa: S101 (after `setup`)
        servers = []
        try:
            try:
                # Not a site of aiohttp: it leaves a TLS handshake a minute.
                sockets = listening(self._host, self.port, self.connections)
                handshake_s = None if self._tls is None else IDLE_S
                servers = [
                    await self._loop.create_server(
                        runner.server, sock=one, ssl=self._tls, ssl_handshake_timeout=handshake_s
                    )
                    for one in sockets
                ]
            except OSError as error:
                self._problem = error
                return
            self.port = sockets[0].getsockname()[1]
            try:
                await self._hub.start()
            except ApeStreamError as error:
                self._problem = error
                return
            self._ready.set()
            await self._stop.wait()
            await self._hub.close(self._why)
        finally:
            for server in servers:
                server.close()
            await runner.cleanup()
