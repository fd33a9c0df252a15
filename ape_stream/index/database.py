"""Videos, parts and tracks of an index, in SQLite."""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ape_stream.errors import ConfigError
from ape_stream.index.layout import PartInfo, Track, Video

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Database"]

T = TypeVar("T", Video, PartInfo, Track)

_TABLES: Final = {
    "video": (Video, "PRIMARY KEY (id), UNIQUE (name)"),
    "part": (PartInfo, "PRIMARY KEY (video, number)"),
    "track": (Track, "PRIMARY KEY (video, id)"),
}
"""Tables by name: the fields of a class are the columns."""
_PAIRS: Final = ("time_base", "rate")
"""Columns that hold two numbers, as JSON."""


class Database:
    """The database of an index.

    Args:
        path: The file.
        write: Open it for writing, and make it where it is not there.

    Raises:
        ConfigError: it cannot be opened.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        self._path = path
        mode = "rwc" if write else "ro"
        with self._reading():
            # A URI, for the mode; `as_uri` quotes what a path may hold.
            uri = f"{path.absolute().as_uri()}?mode={mode}"
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            if write:
                self._create()

    def _create(self) -> None:
        for name, (kind, keys) in _TABLES.items():
            columns = ", ".join(field.name for field in fields(kind))
            self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS {name} ({columns}, {keys}) WITHOUT ROWID"
            )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ConfigError(f"{self._path} cannot be used: {error}") from error

    def __enter__(self) -> Self:
        """The open database."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is added inside is there together, or not at all."""
        with self._reading():
            self._connection.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def add(self, rows: Sequence[Video | PartInfo | Track]) -> None:
        """Add rows, or replace those of the same key."""
        with self._reading():
            for row in rows:
                name = next(name for name, (kind, _) in _TABLES.items() if isinstance(row, kind))
                values = [json.dumps(v) if isinstance(v, tuple) else v for v in astuple(row)]
                marks = ", ".join("?" * len(values))
                insert = f"INSERT OR REPLACE INTO {name} VALUES ({marks})"  # noqa: S608 (our names)
                self._connection.execute(insert, values)

    def videos(self) -> list[Video]:
        """All videos, by id."""
        return self._all(Video, "video", "ORDER BY id")

    def parts(self) -> list[PartInfo]:
        """All parts, by video and number."""
        return self._all(PartInfo, "part", "ORDER BY video, number")

    def tracks(
        self, video: int, start_s: float = float("-inf"), end_s: float = float("inf")
    ) -> list[Track]:
        """The tracks of a video that have a frame in this range of time, by id."""
        where = "WHERE video = ? AND end_s >= ? AND start_s < ? ORDER BY id"
        return self._all(Track, "track", where, (video, start_s, end_s))

    def _all(self, kind: type[T], table: str, rest: str, values: Sequence[object] = ()) -> list[T]:
        with self._reading():
            select = f"SELECT * FROM {table} {rest}"  # noqa: S608 (our names)
            found = self._connection.execute(select, tuple(values))
            names = [field.name for field in fields(kind)]
            return [kind(**_typed(dict(zip(names, row, strict=True)))) for row in found]


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """Columns of two numbers are tuples again."""
    for name in _PAIRS:
        if isinstance(values.get(name), str):
            values[name] = tuple(json.loads(values[name]))
    return values
