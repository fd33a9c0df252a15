"""Prompts and thresholds of a running pipeline, over ZeroMQ: one JSON object asks, one answers.

    {"op": "get"}                                    the active prompts
    {"op": "set", "prompts": [...], "threshold": x}  all or nothing; either key may be left out
    {"op": "status"}  {"op": "stats"}  {"op": "stop"}

A prompt is a text, or {"text", "kind", "stuff", "threshold"}. The answer is {"ok": true, ...} or
{"ok": false, "reason": "..."}, and then nothing has changed.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import zmq

from ape_nodes.zeromq.endpoint import Endpoint
from ape_nodes.zeromq.socket import Security, open_connection
from ape_stream.closing import Closing
from ape_stream.errors import ApeStreamError, ConfigError, SourceError, UsageError
from ape_stream.tables import read_table
from ape_stream.types import PromptSet

if TYPE_CHECKING:
    from ape_stream.pipeline import Pipeline

__all__ = ["ControlClient", "ControlServer"]

CONNECT_S: Final = 2.0
"""How long a client waits for the connection; an answer may take longer.

With the start of the command, whoever asks nobody learns so within three seconds."""
_POLL_MS: Final = 100
"""After so long a wait the thread looks whether it is to end."""
_MAX_REQUEST_BYTES: Final = 1_000_000
"""A thousand long prompts."""
_log = logging.getLogger("ape_stream")


@dataclass(frozen=True, slots=True)
class _Request:
    """What a client may ask."""

    op: Literal["get", "set", "status", "stats", "stop"]
    prompts: Any = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.op != "set" and (self.prompts is not None or self.threshold is not None):
            raise ValueError(f"{self.op!r} takes no prompts and no threshold")


def _as_json(prompts: PromptSet) -> list[dict[str, Any]]:
    return [asdict(prompt) for prompt in prompts]


class ControlServer(Closing):
    """Answers requests about a pipeline in a thread of its own, while it is entered.

    Args:
        endpoint: `rep+bind:tcp://127.0.0.1:5560`; a bare address binds.
        pipeline: What to control; it is entered already.
        keys: Folder made by `ape-stream keys`.
        public: True allows an unencrypted bind that other machines reach.
        timeout_s: How long a change of prompts may take before it is answered with a refusal.

    Raises:
        ConfigError: the endpoint cannot be used, or is public and unguarded.
    """

    def __init__(
        self,
        endpoint: str,
        pipeline: Pipeline,
        *,
        keys: str | None = None,
        public: bool = False,
        timeout_s: float = 30.0,
    ) -> None:
        self._pipeline = pipeline
        self._timeout_s = timeout_s
        parsed = Endpoint.parse(endpoint, ("rep",))
        options: dict[int, int | bytes] = {zmq.MAXMSGSIZE: _MAX_REQUEST_BYTES}
        self._connection = open_connection(
            parsed, Security.of(keys, public=public), high_water=16, options=options
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="ape_nodes control", daemon=True)

    @property
    def address(self) -> str:
        """Where it listens, with the port that the system chose."""
        return self._connection.endpoint.address

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def close(self, _error: BaseException | None = None, /) -> None:
        """Stop answering and close the socket."""
        self._closing.set()
        self._thread.join()

    def _serve(self) -> None:
        socket = self._connection.socket
        try:
            while not self._closing.is_set():
                # One request at a time: changes of prompts must not overtake one another.
                if socket.poll(_POLL_MS):
                    self._reply(socket.recv_multipart())
        finally:
            self._connection.close(0.2)

    def _reply(self, parts: list[bytes]) -> None:
        """Answer as a REP does: the request follows an empty part, the return path precedes it."""
        # The socket is a ROUTER, which adds the peer's id: [id, (more ids,) b"", request].
        if b"" in parts[1:]:
            start = parts.index(b"", 1) + 1
            answer = self._answer(parts[start:])
            self._connection.socket.send_multipart([*parts[:start], answer], zmq.NOBLOCK)

    def _answer(self, request: list[bytes]) -> bytes:
        try:
            answer = {"ok": True, **self._do(_read_request(request))}
        except (ApeStreamError, TimeoutError) as error:
            # set_prompts raises a TimeoutError without text.
            answer = {"ok": False, "reason": str(error) or "it takes too long, ask again"}
        except Exception as error:  # noqa: BLE001 (a request must never end the server)
            _log.exception("control request failed")
            answer = {"ok": False, "reason": f"{type(error).__name__}: {error}"}
        return json.dumps(answer).encode()

    def _do(self, request: _Request) -> dict[str, Any]:
        match request.op:
            case "set":
                return {"prompts": _as_json(self._set(request))}
            case "get":
                return {"prompts": _as_json(self._pipeline.prompts)}
            case "stats":
                return {"stats": asdict(self._pipeline.stats())}
            case "stop":
                self._pipeline.stop()
        return {"status": self._pipeline.outcome}

    def _set(self, request: _Request) -> PromptSet:
        """Change prompts and threshold in one step, so that no frame sees half of the change."""
        if request.prompts is not None:  # a prompt's own threshold goes before the common one
            prompts = PromptSet.of(request.prompts).with_threshold(request.threshold)
        else:  # the active prompts carry the old threshold
            prompts = self._pipeline.prompts
            if request.threshold is not None:
                changed = (replace(prompt, threshold=request.threshold) for prompt in prompts)
                prompts = PromptSet(tuple(changed))
        return self._pipeline.set_prompts(prompts, self._timeout_s)


def _read_request(parts: list[bytes]) -> _Request:
    if len(parts) != 1:
        raise UsageError(f"a request is one part, not {len(parts)}")
    # RecursionError: a megabyte of "[" is deeper than the parser goes.
    try:
        parsed = json.loads(parts[0])
    except (ValueError, RecursionError) as error:
        raise UsageError(f"a request is a JSON object: {error}") from error
    return read_table(_Request, parsed, "a request", error=UsageError)


class ControlClient:
    """Asks a `ControlServer`.

    Args:
        endpoint: `tcp://127.0.0.1:5560`.
        keys: Folder made by `ape-stream keys`.
        timeout_s: How long to wait for an answer.
    """

    def __init__(self, endpoint: str, *, keys: str | None = None, timeout_s: float = 35.0) -> None:
        self._endpoint = Endpoint.parse(endpoint, ("req",))
        self._security = Security.of(keys, public=False)
        self._timeout_s = timeout_s

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and return the answer, without its `ok`.

        Raises:
            SourceError: nobody answers (within 2 s where nobody can be reached), or something
                that is not a `ControlServer`.
            ConfigError: the request was refused or is too long; the message is the reason.
        """
        request = json.dumps({"op": op, **arguments}).encode()
        if len(request) > _MAX_REQUEST_BYTES:
            raise ConfigError(
                f"a request of {len(request)} bytes is too long: {_MAX_REQUEST_BYTES} at most"
            )
        answer = _read_answer(self._exchange(request))
        if answer is None:
            raise SourceError(f"what answers at {self._endpoint.address} is not a control socket")
        if not answer.pop("ok"):
            raise ConfigError(str(answer.get("reason")))
        return answer

    def _exchange(self, request: bytes) -> list[bytes]:
        # A socket for each request: a REQ cannot be used again after a missing answer.
        # IMMEDIATE: it takes no request before the connection and its handshake are complete.
        connection = open_connection(
            self._endpoint, self._security, high_water=1, options={zmq.IMMEDIATE: 1}
        )
        socket = connection.socket
        try:
            if not socket.poll(round(1000 * min(CONNECT_S, self._timeout_s)), zmq.POLLOUT):
                raise SourceError(
                    f"nobody answers at {self._endpoint.address}: is `ape-stream serve` running"
                    " there, and with the same keys (--keys FOLDER)?"
                )
            socket.send(request)
            if not socket.poll(round(1000 * self._timeout_s)):
                raise SourceError(
                    f"no answer from {self._endpoint.address} within {self._timeout_s:g} s"
                )
            return socket.recv_multipart()
        finally:
            connection.close()


def _read_answer(parts: list[bytes]) -> dict[str, Any] | None:
    """The answer, or None where it is not that of a `ControlServer`."""
    try:
        answer = json.loads(parts[0])
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and isinstance(answer.get("ok"), bool) else None
