"""`index`: keep what the network knows of videos before any word, and ask later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ape_stream.cli import options as opt  # noqa: TC001 (typer reads annotations while running)
from ape_stream.values.texts import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ape_stream.indexing.shelf import IndexResult

__all__ = ["index"]


def index(  # noqa: PLR0913 (typer reads a command's options from its parameters)
    sources: Annotated[
        list[str],
        typer.Argument(help="Files, folders, patterns, lists; with --stats, folders of indexes."),
    ],
    *,
    out_dir: Annotated[
        Path, typer.Option(help="Folder of the index; it goes on with what is there.")
    ] = Path("index"),
    keep: Annotated[
        str, typer.Option(help="Most queries of a frame that are kept, or all: always exact.")
    ] = "50",
    words: Annotated[
        Path | None,
        typer.Option(help="A file with words that may be asked, one a line: they are kept better."),
    ] = None,
    model: opt.Model = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    canvas: opt.Canvas = None,
    stream: opt.Stream = None,
    start: opt.Start = None,
    end: opt.End = None,
    stride: opt.Stride = None,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    jobs: opt.Jobs = None,
    stall: opt.Stall = None,
    engine: opt.Engine = None,
    actors: opt.Actors = None,
    address: opt.Address = None,
    extend: opt.Extend = False,
    retry_failed: opt.RetryFailed = False,
    overwrite: opt.Overwrite = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Check indexes; report size and certainty.")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Keep what the network sees before any word; `ask` finds new words in it, in milliseconds."""
    given = dict(locals())  # all options, by name; nothing else is there yet
    if stats:
        _show_statistics([Path(source) for source in sources], as_json=as_json)
    else:
        _index(given)


def _index(given: Mapping[str, Any]) -> None:
    """Index clips, with progress.

    Raises:
        typer.Exit: with code 3 where some clips are not whole, with 1 where none is.
        ApeStreamError: nothing can be done.
    """
    from ape_stream.batch.run import Takeover  # noqa: PLC0415 (numpy takes its time)
    from ape_stream.cli import plan, shelf  # noqa: PLC0415
    from ape_stream.config import PluginConfig  # noqa: PLC0415
    from ape_stream.indexing.keeping import keep_of  # noqa: PLC0415
    from ape_stream.indexing.shelf import IndexOptions, index_shelf  # noqa: PLC0415
    from ape_stream.plugins import PERCEIVER  # noqa: PLC0415

    names = ("model", "device", "dtype", "canvas")
    for_files = shelf.ShelfGiven(
        **{name: given[name] for name in shelf.ShelfGiven.__slots__ if name in given}
    )
    stream = {} if given["stream"] is None else {"stream": given["stream"]}
    options = IndexOptions(
        sources=given["sources"],
        out=given["out_dir"],
        model=plan.model_with(PluginConfig(PERCEIVER), {name: given[name] for name in names}),
        source=stream,
        selection=shelf.selection_of(for_files),
        keep=keep_of(given["keep"]),
        words=_words(given["words"]),
        engine=shelf.engine_of(for_files),
        takeover=Takeover(given["overwrite"], given["extend"], given["retry_failed"]),
    )
    result = shelf.with_progress(
        lambda listener, stop: index_shelf(options, listener, stop), as_json=given["as_json"]
    )
    if result is not None:
        _report(result, given["out_dir"], as_json=given["as_json"])
        shelf.exit_for(result.states)


def _words(path: Path | None) -> tuple[str, ...]:
    from ape_stream.errors import UsageError  # noqa: PLC0415
    from ape_stream.values.texts import read_text  # noqa: PLC0415

    if path is None:
        return ()
    try:
        lines = [" ".join(line.split()).casefold() for line in read_text(path).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the words in {path}: {error}") from error
    return tuple(sorted({line for line in lines if line and not line.startswith("#")}))


def _report(result: IndexResult, out: Path, *, as_json: bool) -> None:
    from ape_stream.cli.console import say  # noqa: PLC0415

    summary = result.summary
    if as_json:
        typer.echo(json.dumps({"event": "finished", "index": str(out), "summary": summary}))
        return
    for state in result.states:
        if state.status == "failed":
            say(f"failed: {state.clip.source}: {state.reason}")
        elif state.problem:
            say(f"not whole: {state.clip.source}: {state.problem}")
    say(
        f"{counted(summary['clips'], 'clip')}, {counted(summary['frames'], 'frame')},"
        f" {summary['rows']} queries kept,"
        f" {summary['dropped']} dropped, {summary['bytes'] / 1e6:.1f} MB"
    )
    typer.echo(out)


def _show_statistics(roots: list[Path], *, as_json: bool) -> None:
    from ape_stream.indexing.statistics import statistics_of  # noqa: PLC0415

    for root in roots:
        found = statistics_of(root)
        if as_json:
            typer.echo(json.dumps({"index": str(root), **found}))
            continue
        typer.echo(f"{root}: {found['videos']} videos, {found['frames']} frames")
        typer.echo(
            f"  rows       {found['rows_per_frame']} a frame kept,"
            f" {found['dropped_per_frame']} dropped; {found['reference_words']} reference words"
        )
        sizes = ", ".join(f"{name} {size}" for name, size in found["bytes"].items())
        typer.echo(f"  bytes      {sizes}")
        per_hour = found["bytes_per_hour_at_30_hz"] / 1e9
        typer.echo(f"  an hour    {per_hour:.2f} GB at 30 frames/s")
        shares = ", ".join(f"{100 * v:.2f} % at {k}" for k, v in found["recheck"].items())
        typer.echo(f"  recheck    {shares} (of frames, asked for all reference words)")
        for line in found["missing"]:
            typer.echo(f"  missing    {line}")
