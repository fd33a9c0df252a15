"""What sinks that write files share: making folders, and saying what went wrong in one line."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ape_stream.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["file_name", "open_output", "written"]

_UNSAFE = re.compile(r"[^\w.-]+")


def file_name(stream: str) -> str:
    """A stream's name as one part of a path: it may be a path itself, or a stranger's."""
    return _UNSAFE.sub("-", stream).strip("-.") or "stream"


@contextmanager
def written(path: str | Path) -> Iterator[None]:
    """Turn the operating system's refusals into a `SinkError` that names the file."""
    try:
        yield
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror or error}") from error


def open_output(path: str | Path, mode: str) -> IO[Any]:
    """Open a file for writing and make the folders above it.

    Raises:
        SinkError: it cannot be made.
    """
    with written(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return Path(path).open(mode, encoding=None if "b" in mode else "utf-8")
