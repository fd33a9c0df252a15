"""Lists of a JSON document that are too long for memory: kept in a temporary file until its end."""

from __future__ import annotations

import json
import shutil
import tempfile
from array import array
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["GroupSpool", "ListSpool", "to_json", "write_document"]


def to_json(value: object) -> str:
    """The one form of JSON here: on one line, text as it is."""
    return json.dumps(value, ensure_ascii=False)


class ListSpool:
    """A JSON list, of which only the file knows the items.

    Args:
        folder: Where the temporary file lies; it has no name there, so a kill leaves nothing.
    """

    def __init__(self, folder: Path) -> None:
        # Closed with the object: it ends with the document that it becomes a part of.
        self._file = cast("IO[str]", tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder))  # noqa: SIM115
        self._empty = True

    def add(self, value: object) -> None:
        """Append an item."""
        self.add_parts([to_json(value)])

    def add_parts(self, parts: Iterable[str]) -> None:
        """Append an item that is JSON already, in pieces."""
        self._file.write("" if self._empty else ",\n")
        self._file.writelines(parts)
        self._empty = False

    def copy_to(self, stream: IO[str]) -> None:
        """Write the whole list and forget it."""
        stream.write("[\n")
        self._file.seek(0)
        shutil.copyfileobj(self._file, stream, 2**14)
        self.close()
        stream.write("\n]")

    def close(self) -> None:
        """Forget everything."""
        self._file.close()


def write_document(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object; values may be `ListSpool`s, which are used up."""
    with path.open("w", encoding="utf-8") as stream:
        for index, (key, value) in enumerate(values.items()):
            stream.write(("{" if index == 0 else ",\n") + to_json(key) + ": ")
            if isinstance(value, ListSpool):
                value.copy_to(stream)
            else:
                stream.write(to_json(value))
        stream.write("}\n")


class GroupSpool:
    """Lines by key, each with a position: only the file knows the lines.

    Frames bring a little of every track, formats want one track after the other.

    Args:
        folder: Where the temporary file lies, without a name.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile("w+b", dir=folder)  # noqa: SIM115 (closed by `close`)
        self._end = 0
        # Of each key: position, offset and length, one after the other; 24 bytes a line.
        self._index: dict[tuple[int, ...], array[int]] = {}

    def add(self, key: tuple[int, ...], position: int, text: str) -> None:
        """Append a line to a group; positions of a group ascend."""
        data = text.encode()
        self._file.write(data)
        self._index.setdefault(key, array("q")).extend((position, self._end, len(data)))
        self._end += len(data)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """All keys, sorted."""
        return iter(sorted(self._index))

    def items(self, key: tuple[int, ...]) -> Iterator[tuple[int, str]]:
        """Positions and lines of a group, in the order they came."""
        entries = iter(self._index[key])
        for position, offset, length in zip(entries, entries, entries, strict=True):
            self._file.seek(offset)
            yield position, self._file.read(length).decode()

    def close(self) -> None:
        """Forget everything."""
        self._file.close()
        self._index.clear()
