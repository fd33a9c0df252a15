"""The commands `ape-stream serve`, `keys` and `bench wire`."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 (typer reads the annotation)
from typing import TYPE_CHECKING, Annotated

import typer

from ape_stream.cli.options import (  # noqa: TC001 (typer reads them)
    AsJson,
    ConfigFile,
    Metrics,
    Overwrite,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_stream.pipeline import Pipeline

__all__ = ["KeysOption", "keys", "serve", "wire"]

KeysOption = Annotated[str | None, typer.Option(help="Folder made by `ape-stream keys`.")]


def keys(
    folder: Annotated[Path, typer.Argument(help="Where the keys are written; made if missing.")],
) -> None:
    """Make CURVE keys, so that ZeroMQ sockets can be reached from other machines.

    The binding end keeps the whole folder; the connecting end gets server.key, client.key and
    client.key_secret. Both use --keys FOLDER, or keys = "FOLDER" in TOML.
    """
    from ape_nodes.zeromq.keys import make_keys  # noqa: PLC0415 (zmq)

    for path in make_keys(folder):
        typer.echo(path)


def serve(
    config: ConfigFile,
    *,
    endpoint: Annotated[str, typer.Option("--control", help="Where to listen.")] = (
        "rep+bind:tcp://127.0.0.1:5560"
    ),
    keys: KeysOption = None,
    public: Annotated[bool, typer.Option(help="Allow an unencrypted public bind.")] = False,
    metrics: Metrics = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Run what a TOML file describes, and answer on a control socket meanwhile."""
    from ape_nodes.zeromq.control import ControlServer  # noqa: PLC0415 (zmq, numpy)
    from ape_stream.cli.console import say  # noqa: PLC0415
    from ape_stream.cli.execute import execute  # noqa: PLC0415
    from ape_stream.cli.plan import from_file  # noqa: PLC0415

    @contextmanager
    def serving(pipeline: Pipeline) -> Iterator[None]:
        with ControlServer(endpoint, pipeline, keys=keys, public=public) as server:
            say(f"control: {server.address}")
            yield

    execute(
        from_file(config, overwrite=overwrite, metrics=metrics), as_json=as_json, serving=serving
    )


def wire(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each form is sent.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per form.")] = False,
) -> None:
    """Bytes and milliseconds of a 1080p result over ZeroMQ, next to pickles and raw frames."""
    from ape_nodes.zeromq import benchmark  # noqa: PLC0415 (zmq, numpy)

    benchmark.wire(rounds=rounds, as_json=as_json)
