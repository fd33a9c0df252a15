"""The verbs `ape-stream serve`, `control` and `keys`."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 (typer reads the annotation)
from typing import Annotated, Any

import typer

from ape_nodes.zeromq.control import ControlClient, ControlServer
from ape_nodes.zeromq.socket import make_keys
from ape_stream.config import load
from ape_stream.config.build import assemble

__all__ = ["control", "keys", "serve"]


def keys(
    folder: Annotated[Path, typer.Argument(help="Where the keys go; made if need be.")],
) -> None:
    """Make CURVE keys, so that ZeroMQ sockets can leave this machine.

    The binding end keeps the whole folder; the connecting end gets server.key, client.key and
    client.key_secret. Both say keys=FOLDER.
    """
    for path in make_keys(folder):
        typer.echo(path)


def control(
    endpoint: Annotated[str, typer.Argument(help="Where it listens: tcp://127.0.0.1:5560.")],
    op: Annotated[str, typer.Argument(help="get, set, status, stats or stop.")] = "get",
    prompts: Annotated[str | None, typer.Option(help="New prompts: 'cat, dog'.")] = None,
    threshold: Annotated[float | None, typer.Option(help="New threshold, 0..1.")] = None,
    keys: Annotated[str | None, typer.Option(help="Folder of `ape-stream keys`.")] = None,
) -> None:
    """Ask or change a running pipeline over its control socket."""
    given: dict[str, Any] = {"prompts": prompts, "threshold": threshold}
    wanted = {name: value for name, value in given.items() if value is not None}
    typer.echo(json.dumps(ControlClient(endpoint, keys=keys).ask(op, **wanted), indent=2))


def serve(
    config: Annotated[Path, typer.Argument(help="The run, as TOML.")],
    endpoint: Annotated[str, typer.Option("--control", help="Where to listen.")] = (
        "rep+bind:tcp://127.0.0.1:5560"
    ),
    keys: Annotated[str | None, typer.Option(help="Folder of `ape-stream keys`.")] = None,
    public: Annotated[bool, typer.Option(help="Allow an unencrypted public bind.")] = False,  # noqa: FBT002
) -> None:
    """Run a configuration and answer on a control socket meanwhile."""
    with (
        assemble(load(config)) as pipeline,
        ControlServer(endpoint, pipeline, keys=keys, public=public) as server,
    ):
        typer.echo(f"control: {server.address}", err=True)
        for _ in pipeline:
            pass
