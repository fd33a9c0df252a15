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
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final, Self

import zmq

from ape_nodes.zeromq.endpoint import Endpoint
from ape_nodes.zeromq.socket import Security, open_connection
from ape_stream.closing import Closing
from ape_stream.errors import ApeStreamError, ConfigError, PromptError, SourceError, UsageError
from ape_stream.types import Prompt, PromptKind, PromptSet

if TYPE_CHECKING:
    from ape_stream.pipeline import Pipeline

__all__ = ["ControlClient", "ControlServer", "read_prompts"]

CONNECT_S: Final = 3.0
"""How long a client waits for the connection; an answer may take longer."""
_POLL_MS: Final = 100
_MAX_REQUEST_BYTES: Final = 1_000_000
_ARGUMENTS: Final[dict[str, set[str]]] = {
    "get": set(),
    "set": {"prompts", "threshold"},
    "status": set(),
    "stats": set(),
    "stop": set(),
}
"""What each operation takes."""
_log = logging.getLogger("ape_stream")


def read_prompts(given: Any) -> PromptSet:
    """Prompts from a JSON value: one line with commas, or a list of texts and objects.

    Raises:
        PromptError: it is neither, or a prompt is unusable.
    """
    if isinstance(given, str):
        return PromptSet.of(given)
    if not isinstance(given, list):
        raise PromptError("prompts are a text or a list")
    return PromptSet.of([_read_prompt(entry) for entry in given])


def _read_prompt(entry: Any) -> Prompt:
    if isinstance(entry, str):
        return Prompt(entry)
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        raise PromptError(f"a prompt is a text or an object with 'text', got {entry!r:.80}")
    unknown = set(entry) - {"text", "kind", "stuff", "threshold"}
    if unknown:
        raise PromptError(f"a prompt has no {sorted(unknown)}: text, kind, stuff, threshold")
    kind, threshold = entry.get("kind"), entry.get("threshold")
    if kind not in (None, *map(str, PromptKind)):
        raise PromptError(f"kind {kind!r} is none of {[str(k) for k in PromptKind]}")
    if not (threshold is None or type(threshold) in (int, float)):
        raise PromptError(f"threshold {threshold!r} is not a number")
    stuff = entry.get("stuff", False)
    if not isinstance(stuff, bool):
        raise PromptError(f"stuff {stuff!r} is not true or false")
    return Prompt(entry["text"], None if kind is None else PromptKind(kind), stuff, threshold)


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
                if socket.poll(_POLL_MS):
                    self._reply(socket.recv_multipart())
        finally:
            self._connection.close(0.2)

    def _reply(self, parts: list[bytes]) -> None:
        """Answer as a REP does: the request follows an empty part, the return path precedes it."""
        if b"" in parts[1:]:
            start = parts.index(b"", 1) + 1
            answer = self._answer(parts[start:])
            self._connection.socket.send_multipart([*parts[:start], answer], zmq.NOBLOCK)

    def _answer(self, request: list[bytes]) -> bytes:
        try:
            answer = {"ok": True, **self._do(_read_request(request))}
        except (ApeStreamError, TimeoutError) as error:
            answer = {"ok": False, "reason": str(error) or "it takes too long, ask again"}
        except Exception as error:  # noqa: BLE001 (a request must never end the server)
            _log.exception("control request failed")
            answer = {"ok": False, "reason": f"{type(error).__name__}: {error}"}
        return json.dumps(answer).encode()

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["op"]:
            case "set":
                return {"prompts": _as_json(self._set(request))}
            case "get":
                return {"prompts": _as_json(self._pipeline.prompts)}
            case "stats":
                return {"stats": asdict(self._pipeline.stats())}
            case "stop":
                self._pipeline.stop()
        return {"status": self._pipeline.outcome}

    def _set(self, request: dict[str, Any]) -> PromptSet:
        """Change prompts and threshold in one step, so that no frame sees half of the change."""
        given, threshold = request.get("prompts"), request.get("threshold")
        prompts = self._pipeline.prompts if given is None else read_prompts(given)
        if threshold is not None:
            if type(threshold) not in (int, float):
                raise PromptError(f"threshold {threshold!r} is not a number")
            # Active prompts carry the old threshold; new ones may have one of their own.
            kept = [given is not None and prompt.threshold is not None for prompt in prompts]
            prompts = PromptSet(
                tuple(
                    prompt if keep else replace(prompt, threshold=threshold)
                    for prompt, keep in zip(prompts, kept, strict=True)
                )
            )
        return self._pipeline.set_prompts(prompts, self._timeout_s)


def _read_request(parts: list[bytes]) -> dict[str, Any]:
    if len(parts) != 1:
        raise UsageError(f"a request is one part, not {len(parts)}")
    try:
        parsed = json.loads(parts[0])
    except (ValueError, RecursionError) as error:
        raise UsageError(f"a request is a JSON object: {error}") from error
    if not isinstance(parsed, dict) or str(parsed.get("op")) not in _ARGUMENTS:
        raise UsageError(f"a request is a JSON object with 'op', one of {sorted(_ARGUMENTS)}")
    unknown = set(parsed) - _ARGUMENTS[parsed["op"]] - {"op"}
    if unknown:
        raise UsageError(f"{parsed['op']!r} takes no {sorted(unknown)}")
    return parsed


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
            SourceError: nobody answers (within 3 s where nobody can be reached), or something
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
            raise SourceError(f"what answers at {self._endpoint} is not a control socket")
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
                    f"nobody answers at {self._endpoint}: is `ape-stream serve` running there,"
                    " and with the same keys (--keys FOLDER)?"
                )
            socket.send(request)
            if not socket.poll(round(1000 * self._timeout_s)):
                raise SourceError(f"no answer from {self._endpoint} within {self._timeout_s:g} s")
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
