"""MCAP recordings that were cut off: everything up to the last whole record can be read.

Readers require a footer, which a recorder writes when it is closed. Ours writes one after each
chunk, too, and what comes next replaces it: so a recorder that was killed leaves a file that any
reader takes. Of others the file is shown to readers with its damaged end replaced by an empty
index, and is not changed. Records and footer: https://mcap.dev/spec.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CutOffRecording", "end_for_now", "is_cut_off"]

MAGIC: Final = b"\x89MCAP0\r\n"
_RECORD: Final = struct.Struct("<BQ")  # opcode, length of what follows
_DATA_END: Final = 0x0F
# A DataEnd record without checksum, a Footer record without summary, and the magic.
_END: Final = (
    _RECORD.pack(_DATA_END, 4) + bytes(4) + _RECORD.pack(0x02, 20) + bytes(8 + 8 + 4) + MAGIC
)


def _metadata(name: str, key: str, value: str) -> bytes:
    """A Metadata record with one pair of texts."""

    def sized(content: bytes) -> bytes:
        return struct.pack("<I", len(content)) + content

    pair = sized(key.encode()) + sized(value.encode())
    record = sized(name.encode()) + sized(pair)
    return _RECORD.pack(0x0C, len(record)) + record


# Its first record is what the end of a recording that was closed without an index lacks.
_END_FOR_NOW: Final = _metadata("ape_stream", "partial", "the recorder was not closed") + _END


def end_for_now(file: BinaryIO) -> None:
    """Write an end with which the file can be read, and go back to before it."""
    position = file.tell()
    file.write(_END_FOR_NOW)
    file.flush()
    file.seek(position)


def is_cut_off(path: Path) -> bool:
    """Whether this is an MCAP file whose recorder was not closed.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return False
        size = file.seek(0, io.SEEK_END)
        # A whole file has the magic at both ends; the one at the start must not count twice.
        file.seek(max(size - len(_END_FOR_NOW), len(MAGIC)))
        end = file.read()
        return not end.endswith(MAGIC) or end == _END_FOR_NOW


@dataclass(frozen=True, slots=True)
class CutOffRecording:
    """A path to a recording that was cut off, as rosbags' readers use it."""

    path: Path

    @property
    def suffix(self) -> str:
        """The file's suffix."""
        return self.path.suffix

    def exists(self) -> bool:
        """Whether the file exists."""
        return self.path.exists()

    def is_dir(self) -> bool:
        """False: it is a file."""
        return False

    def open(self, _mode: str = "rb") -> BinaryIO:
        """Open the file with a valid end."""
        file = self.path.open("rb")
        return io.BufferedReader(_WithEnd(file, _end_of_data(file)))

    def __str__(self) -> str:
        return str(self.path)


def _end_of_data(file: BinaryIO) -> int:
    """Where the last whole record of the data section ends."""
    size = file.seek(0, io.SEEK_END)
    # Records follow one another without gaps, so the lengths alone lead to the last whole one.
    # A chunk is one record: of a chunk that was cut off nothing is read.
    end = len(MAGIC)
    while end + _RECORD.size <= size:
        file.seek(end)
        opcode, length = _RECORD.unpack(file.read(_RECORD.size))
        # After DataEnd comes the index, which may be cut off: `_END` replaces it.
        if opcode == _DATA_END or end + _RECORD.size + length > size:
            break
        end += _RECORD.size + length
    return end


class _WithEnd(io.RawIOBase):
    """The first bytes of a file, followed by `_END`."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        # rosbags looks for the footer from the end of the file, so the end is that of `_END`.
        base = (0, self._position, self._size + len(_END))[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        if self._position < self._size:
            self._file.seek(self._position)
            data = self._file.read(min(len(view), self._size - self._position))
        else:
            start = self._position - self._size
            data = _END[start : start + len(view)]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
