"""Prompts and thresholds of a running pipeline, over ZeroMQ: one JSON object asks, one answers.

    {"op": "get"}                                    prompts in force
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
from typing import TYPE_CHECKING, Any, Self

import zmq

from ape_nodes.zeromq.endpoint import Endpoint
from ape_nodes.zeromq.socket import Security, open_link
from ape_stream.errors import ApeStreamError, ConfigError, PromptError, SourceError, UsageError
from ape_stream.types import Prompt, PromptKind, PromptSet

if TYPE_CHECKING:
    from types import TracebackType

    from ape_stream.pipeline import Pipeline

__all__ = ["ControlClient", "ControlServer", "read_prompts"]

_SLICE_MS = 100
_MAX_REQUEST_BYTES = 1_000_000
_KEYS = {"get": set(), "set": {"prompts", "threshold"}, "status": set(), "stats": set()}
_KEYS["stop"] = set()
_log = logging.getLogger("ape_stream")


def read_prompts(given: Any) -> PromptSet:
    """Prompts from what JSON can say: one line with commas, or a list of texts and objects.

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


def _shown(prompts: PromptSet) -> list[dict[str, Any]]:
    return [asdict(prompt) for prompt in prompts]


class ControlServer:
    """Answers requests about a pipeline in a thread of its own, while it is entered.

    Args:
        endpoint: `rep+bind:tcp://127.0.0.1:5560`; a bare address binds.
        pipeline: What to control; it is entered already.
        keys: Folder made by `ape-stream keys`.
        public: True allows an unencrypted bind that other machines reach.
        timeout_s: How long a change of prompts may take before the answer says so.

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
        self._link = open_link(
            parsed, Security.of(keys, public=public), high_water=16, options=options
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="ape_nodes control", daemon=True)

    @property
    def address(self) -> str:
        """Where it listens, with the port that the system chose."""
        return self._link.endpoint.address

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop answering and close the socket."""
        self._closing.set()
        self._thread.join()

    def _serve(self) -> None:
        try:
            while not self._closing.is_set():
                if self._link.socket.poll(_SLICE_MS):
                    self._reply(self._link.socket.recv_multipart())
        finally:
            self._link.close(0.2)

    def _reply(self, parts: list[bytes]) -> None:
        """Answer as a REP does: the request comes after an empty part, the way back before it."""
        if b"" in parts[1:]:
            start = parts.index(b"", 1) + 1
            answer = self._answer(parts[start:])
            self._link.socket.send_multipart([*parts[:start], answer], zmq.NOBLOCK)

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
                return {"prompts": _shown(self._set(request))}
            case "get":
                return {"prompts": _shown(self._pipeline.prompts)}
            case "stats":
                return {"stats": asdict(self._pipeline.stats())}
            case "stop":
                self._pipeline.stop()
        return {"status": self._pipeline.outcome}

    def _set(self, request: dict[str, Any]) -> PromptSet:
        """Change prompts and threshold in one step, so that no frame sees half of it."""
        wanted = self._pipeline.prompts
        if request.get("prompts") is not None:
            wanted = read_prompts(request["prompts"])
        threshold = request.get("threshold")
        if threshold is not None:
            if type(threshold) not in (int, float):
                raise PromptError(f"threshold {threshold!r} is not a number")
            own = request.get("prompts") is not None  # then a prompt may have one of its own
            wanted = PromptSet(
                tuple(
                    p if own and p.threshold is not None else replace(p, threshold=threshold)
                    for p in wanted
                )
            )
        return self._pipeline.set_prompts(wanted, self._timeout_s)


def _read_request(parts: list[bytes]) -> dict[str, Any]:
    if len(parts) != 1:
        raise UsageError(f"a request is one part, not {len(parts)}")
    try:
        parsed = json.loads(parts[0])
    except (ValueError, RecursionError) as error:
        raise UsageError(f"a request is a JSON object: {error}") from error
    if not isinstance(parsed, dict) or str(parsed.get("op")) not in _KEYS:
        raise UsageError(f"a request is a JSON object with 'op', one of {sorted(_KEYS)}")
    unknown = set(parsed) - _KEYS[parsed["op"]] - {"op"}
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
        """Send one request and return the answer, less its `ok`.

        Raises:
            SourceError: nobody answers, or something that is no `ControlServer`.
            ConfigError: the request was refused or is too long; the message is the reason.
        """
        request = json.dumps({"op": op, **arguments}).encode()
        if len(request) > _MAX_REQUEST_BYTES:
            raise ConfigError(
                f"a request of {len(request)} bytes is too long: {_MAX_REQUEST_BYTES} at most"
            )
        # A socket per request: REQ cannot be used again after an answer that did not come.
        link = open_link(self._endpoint, self._security, high_water=1, options={})
        try:
            link.socket.send(request)
            if not link.socket.poll(round(1000 * self._timeout_s)):
                raise SourceError(f"nobody answers at {self._endpoint}: is the pipeline running?")
            answer = _read_answer(link.socket.recv_multipart())
        finally:
            link.close()
        if answer is None:
            raise SourceError(f"what answers at {self._endpoint} is no control socket")
        if not answer.pop("ok"):
            raise ConfigError(str(answer.get("reason")))
        return answer


def _read_answer(parts: list[bytes]) -> dict[str, Any] | None:
    """The answer, or None where it is none of a `ControlServer`."""
    try:
        answer = json.loads(parts[0])
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and isinstance(answer.get("ok"), bool) else None
