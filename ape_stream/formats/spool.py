"""Lists of a JSON document that are too long for memory: kept in a temporary file until its end."""

from __future__ import annotations

import json
import shutil
import tempfile
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["ListSpool", "to_json", "write_document"]


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
        self.add_text(to_json(value))

    def add_text(self, text: str) -> None:
        """Append an item that is JSON already."""
        self._file.write(text if self._empty else ",\n" + text)
        self._empty = False

    def copy_to(self, stream: IO[str]) -> None:
        """Write the whole list and forget it."""
        stream.write("[\n")
        self._file.seek(0)
        shutil.copyfileobj(self._file, stream, 2**20)
        self._file.close()
        stream.write("\n]")


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
