"""A whole run of indexing over a shelf of clips: plan, workers, the database."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ape_stream.batch.clips import RESERVED, find_clips
from ape_stream.batch.folder import OutFolder, json_bytes
from ape_stream.batch.job import Setup
from ape_stream.batch.plan import Plan
from ape_stream.batch.run import (
    SHARD_FRAMES,
    Takeover,
    plugin_values,
    run_job,
    write_failed,
)
from ape_stream.batch.selection import Selection
from ape_stream.batch.shards import TEMPORARY, write_whole
from ape_stream.batch.workers import Engine
from ape_stream.files import written
from ape_stream.index.database import Database
from ape_stream.index.layout import DATABASE, HEAD, MANIFEST, PARTS, REFERENCE, SOURCES
from ape_stream.index.levels_file import write_levels
from ape_stream.index.store import open_store
from ape_stream.indexing.job import ADDRESS, read_rows
from ape_stream.indexing.keeping import Keep
from ape_stream.sinks.coco import package_version

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from ape_stream.batch.clips import Shelf
    from ape_stream.batch.state import ClipState, Listener, Progress
    from ape_stream.config import PluginConfig
    from ape_stream.index.store import Store
    from ape_stream.indexing.writing import VideoRows

__all__ = ["IndexOptions", "IndexResult", "add_to_database", "index_shelf", "write_database"]


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """What is indexed, and how."""

    sources: Sequence[str]
    """Files, folders, patterns, lists."""
    out: Path
    """Folder of the index."""
    model: PluginConfig
    """The perceiver."""
    source: dict[str, Any] = field(default_factory=dict)
    """Options of every source."""
    selection: Selection = field(default_factory=Selection)
    """Which frames."""
    keep: Keep = field(default_factory=Keep)
    """Which queries."""
    words: tuple[str, ...] = ()
    """Reference words beyond the names that the network learnt."""
    engine: Engine = field(default_factory=Engine)
    """What does the work."""
    takeover: Takeover = field(default_factory=Takeover)
    """What may become of earlier results."""


@dataclass(frozen=True, slots=True)
class IndexResult:
    """What came of a run."""

    states: Sequence[ClipState]
    """Every clip, done or failed."""
    summary: dict[str, Any]
    """What `summary.json` holds."""


def index_shelf(options: IndexOptions, listener: Listener, stop: threading.Event) -> IndexResult:
    """Index clips, or go on where an earlier run of the same plan ended.

    Args:
        options: What and how.
        listener: Gets its progress.
        stop: Ends the run when it is set; it can go on later.

    Raises:
        ConfigError: the folder holds the results of another plan.
        StoppedError: it was stopped.
        ApeStreamError: nothing can be done, as where the disk is full.
    """
    out = OutFolder(options.out)
    reserved = {*RESERVED, PARTS, DATABASE, HEAD, MANIFEST, REFERENCE, SOURCES}
    shelf = find_clips(options.sources, without=options.out, reserved=reserved)
    with out.locked():
        if shelf.folder is not None:
            write_whole(out.root / SOURCES, json_bytes({"folder": str(shelf.folder)}))
        if options.takeover.overwrite:
            (out.root / MANIFEST).unlink(missing_ok=True)  # the settings may be others
        _, states = run_job(
            out,
            _plan(options, shelf),
            _setup(options, shelf),
            options.engine,
            options.takeover,
            _ShardsGo(out, listener),
            stop,
        )
        return _finish(out, states)


class _ShardsGo:
    """Removes the shards of a clip once its parts are written: they hold the same."""

    def __init__(self, out: OutFolder, listener: Listener) -> None:
        self._out = out
        self._listener = listener

    def progress(self, progress: Progress) -> None:
        """See `Listener`."""
        self._listener.progress(progress)

    def clip(self, state: ClipState) -> None:
        """See `Listener`."""
        if state.status == "done":
            shards = self._out.shards(state.clip)
            for number in shards.numbers():
                with suppress(OSError):
                    shards.path(number).unlink()
        self._listener.clip(state)

    def note(self, line: str) -> None:
        """See `Listener`."""
        self._listener.note(line)


def _plan(options: IndexOptions, shelf: Shelf) -> Plan:
    find = {
        "model": plugin_values(options.model, without=("device",)),
        "source": options.source,
        "frames": asdict(options.selection),
        "keep": asdict(options.keep),
        "words": sorted(options.words),
        "shard_frames": SHARD_FRAMES,
        "version": package_version(),
    }
    return Plan(find, {"index": True}, shelf.clips)


def _setup(options: IndexOptions, shelf: Shelf) -> Setup:
    out = str(options.out.absolute())
    job = {
        "out": out,
        "model": asdict(options.model),
        "keep": asdict(options.keep),
        "words": sorted(options.words),
    }
    return Setup(
        job=ADDRESS,
        options=job,
        out=out,
        folder=None if shelf.folder is None else str(shelf.folder),
        selection=options.selection,
        source=options.source,
        shard_frames=SHARD_FRAMES,
    )


def _finish(out: OutFolder, states: list[ClipState]) -> IndexResult:
    """Write the database; `summary.json` comes last and says that all is whole."""
    done = [state for state in states if state.status == "done"]
    write_database(out.root, [read_rows(out.clip_work(state.clip)) for state in done])
    if done:
        store = open_store(out.root)
        write_levels(store)
        _remove_others(store)
    totals = {
        name: sum((state.found or {})[name] for state in done)
        for name in ("frames", "rows", "dropped", "tracks", "bytes")
    }
    failed = [
        {"clip": state.clip.name, "source": state.clip.source, "reason": state.reason}
        for state in states
        if state.status == "failed"
    ]
    summary = {"clips": len(done), **totals, "failed": failed}
    write_failed(out.failed, states)
    write_whole(out.summary, json_bytes(summary, indent=1))
    return IndexResult(states, summary)


def _remove_others(store: Store) -> None:
    """Remove parts of clips that are no longer in the plan, or are called otherwise in it."""
    infos = [*(part.info for part in store.parts), *(one.info for one in store.missing)]
    own = {info.path for info in infos}
    for path in sorted((store.root / PARTS).rglob("*"), reverse=True):  # files before folders
        if path.is_dir():
            with suppress(OSError):  # not empty
                path.rmdir()
        elif (path.parent / path.name.partition(".")[0]).relative_to(
            store.root
        ).as_posix() not in own:
            path.unlink(missing_ok=True)


def write_database(root: Path, videos: Iterable[VideoRows]) -> None:
    """Write the database of an index, whole or not at all: the same bytes for the same rows.

    Raises:
        SinkError: it cannot be written.
    """
    with _replaced(root, fresh=True) as database:
        for number, rows in enumerate(videos, start=1):
            _add(database, number, rows)


def add_to_database(root: Path, number: int, rows: VideoRows) -> None:
    """Add to a video of an index that others may read: all of it is there, or nothing.

    Args:
        root: Folder of the index.
        number: Of the video, from 1.
        rows: What is new of it.

    Raises:
        SinkError: it cannot be written.
    """
    with _replaced(root, fresh=False) as database:
        _add(database, number, rows)


@contextmanager
def _replaced(root: Path, *, fresh: bool) -> Iterator[Database]:
    """A new database, or a copy of the one that is there, which takes its place at the end."""
    temporary = root / f".{DATABASE}.{os.getpid()}{TEMPORARY}"
    with written(root / DATABASE):
        temporary.unlink(missing_ok=True)
        if not fresh and (root / DATABASE).exists():
            shutil.copyfile(root / DATABASE, temporary)
        with Database(temporary, write=True) as database, database.transaction():
            yield database
        temporary.replace(root / DATABASE)


def _add(database: Database, number: int, rows: VideoRows) -> None:
    database.add([replace(rows.video, id=number)])
    database.add([replace(part, video=number) for part in rows.parts])
    database.add([replace(track, video=number) for track in rows.tracks])
