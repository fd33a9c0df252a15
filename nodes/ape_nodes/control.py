"""The command `ape-stream control`: asks a running pipeline, over ZeroMQ or the live page."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any, Protocol

import typer

from ape_nodes.zeromq.commands import KeysOption  # noqa: TC001 (typer reads it)
from ape_stream.optional import library

__all__ = ["control"]

_log = logging.getLogger("ape_stream")


class _Client(Protocol):
    def ask(self, op: str, **arguments: Any) -> dict[str, Any]: ...


def control(
    endpoint: Annotated[
        str,
        typer.Argument(
            help="Where it listens: tcp://127.0.0.1:5560, or http://127.0.0.1:8008/#t=TOKEN of a"
            " live page."
        ),
    ],
    op: Annotated[str, typer.Argument(help="get, set, status, stats or stop.")] = "get",
    prompt: Annotated[
        list[str] | None, typer.Option(help='New prompts: "cat, dog". May be repeated.')
    ] = None,
    prompts: Annotated[str | None, typer.Option(hidden=True)] = None,
    threshold: Annotated[float | None, typer.Option(help="Lowest score kept, 0..1.")] = None,
    keys: KeysOption = None,
) -> None:
    """Ask a running pipeline over its control socket or live page, or change its prompts."""
    if prompts is not None:
        _log.warning("--prompts is now --prompt, and will be removed in the next release")
    # Each may hold several prompts with commas between; the server splits the line.
    lines = [*(prompt or []), *([] if prompts is None else [prompts])]
    arguments: dict[str, Any] = {"prompts": ", ".join(lines)} if lines else {}
    if threshold is not None:
        arguments["threshold"] = threshold
    answer = _client(endpoint, keys).ask(op, **arguments)
    typer.echo(json.dumps(answer, indent=2))


def _client(endpoint: str, keys: str | None) -> _Client:
    if endpoint.startswith(("http://", "https://")):
        from ape_nodes.web.client import WebClient  # noqa: PLC0415 (only where it is asked for)

        return WebClient(endpoint)
    library("zmq", "zmq")  # names the extra where it is missing
    from ape_nodes.zeromq.control import ControlClient  # noqa: PLC0415 (zmq, numpy)

    return ControlClient(endpoint, keys=keys)
