"""What outputs must not do, found before anything is opened: destroy a source, or each other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ape_stream.errors import ConfigError
from ape_stream.files import written
from ape_stream.protocols import ReadsFiles, WritesFiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ape_stream.protocols import Sink, Source

__all__ = ["refuse_conflicts", "refuse_inputs"]


def refuse_conflicts(sinks: Iterable[Sink], sources: Sequence[Source]) -> None:
    """Check the outputs of a run against its sources, each other, and what is on the disk.

    Raises:
        ConfigError: an output is also a source, is named twice, exists already, or takes fewer
            streams than there are.
        SinkError: an output cannot be written.
    """
    writers = [sink for sink in sinks if isinstance(sink, WritesFiles)]
    files = [path for sink in writers for path in sink.files]
    _refuse_twice(files)
    refuse_inputs(files, (path for s in sources if isinstance(s, ReadsFiles) for path in s.files()))
    for sink in writers:
        sink.claim([source.name for source in sources])


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that are also inputs; files are compared, not names (links).

    Raises:
        ConfigError: one is.
    """
    existing: dict[tuple[int, int], Path] = {}
    for path in outputs:
        with written(path):
            if path.is_file():
                existing[_identity(path)] = path
    if not existing:
        return
    for path in inputs:
        try:
            # By device and inode: links and other spellings of a name are found, too.
            same = existing.get(_identity(path))
        except (OSError, ValueError):  # the source says so itself, when it is opened
            continue
        if same is not None:
            raise ConfigError(f"{same} is both an output and the source {path}: name another file")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _refuse_twice(files: Sequence[Path]) -> None:
    names = []
    for path in files:
        with written(path):
            # By name: most of these files do not exist yet.
            names.append(os.path.realpath(path))
    for name, path in zip(names, files, strict=True):
        if names.count(name) > 1 and not _may_be_shared(path):
            raise ConfigError(f"{path} is named by two outputs: give each a file of its own")


def _may_be_shared(path: Path) -> bool:
    """Devices and pipes take the lines of several outputs."""
    with written(path):
        return path.exists() and not path.is_file() and not path.is_dir()
