"""The blocks of a part: compressed pieces one after the other, each with a CRC-32 of its own.

What an answer needs of few frames only: masks, and coarse states. A piece is the size of what it
holds (uint32), then this, compressed by Zstandard.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from zlib import crc32

from ape_stream.errors import ConfigError
from ape_stream.optional import library

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BlockFile", "Pieces", "pack_piece", "unpack_piece"]

_LEVEL: Final = 3
"""Higher ones save 4 % of the masks, and take several times as long."""
_SIZE: Final = struct.Struct("<I")
_LARGEST: Final = 2**30


def pack_piece(data: bytes) -> bytes:
    """Compress a piece; nothing stays nothing."""
    if not data:
        return b""
    codec = library("pyarrow", "index").Codec("zstd", compression_level=_LEVEL)
    compressed: bytes = codec.compress(data, asbytes=True)
    return _SIZE.pack(len(data)) + compressed


def unpack_piece(piece: memoryview) -> bytes:
    """Undo `pack_piece`.

    Raises:
        ValueError: it is damaged.
    """
    if not len(piece):
        return b""
    pa = library("pyarrow", "index")
    try:
        (size,) = _SIZE.unpack_from(piece)
        if size > _LARGEST:
            raise ValueError(f"a piece of {size} bytes")
        data: bytes = pa.Codec("zstd").decompress(
            pa.py_buffer(piece[_SIZE.size :]), decompressed_size=size, asbytes=True
        )
    except (pa.ArrowException, OSError, struct.error) as error:
        raise ValueError(str(error)) from error
    return data


class BlockFile:
    """The blocks of one part, mapped into memory.

    Args:
        path: The file.
        size: Its length, bytes.

    Raises:
        ConfigError: it is missing or has another length.
    """

    def __init__(self, path: Path, size: int) -> None:
        pa = library("pyarrow", "index")
        self._name = path.name
        try:
            if path.stat().st_size != size:
                raise ConfigError(f"{path.name} has {path.stat().st_size} bytes in place of {size}")
            if size:  # nothing cannot be mapped
                with pa.memory_map(str(path)) as source:
                    self._data = memoryview(source.read_buffer())
            else:
                self._data = memoryview(b"")
        except FileNotFoundError:
            raise ConfigError(f"{path.name} is missing") from None
        except OSError as error:
            raise ConfigError(f"{path.name} cannot be read: {error}") from error

    def read(self, start: int, end: int, crc: int) -> bytes:
        """What a piece holds.

        Args:
            start: Where the piece begins.
            end: Where it ends.
            crc: CRC-32 of it.

        Raises:
            ValueError: it is damaged.
        """
        self.check(start, end, crc)
        return unpack_piece(self._data[start:end])

    def check(self, start: int, end: int, crc: int) -> None:
        """Compare a piece with its checksum; arguments and errors as of `read`."""
        if crc32(self._data[start:end]) != crc:
            raise ValueError(f"{self._name} is damaged between bytes {start} and {end}")


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """The pieces of one kind: each is of some frames, and known by the first of these."""

    file: BlockFile
    """Where they are."""
    begin: int
    """Where the first one begins."""
    ends: NDArray[np.int64]
    """(F,) where the piece of a frame ends; that of a frame which has none is empty."""
    crc32s: NDArray[np.uint32]
    """(F,) its checksum."""
    _whole: set[int] = field(default_factory=set)

    def read(self, frame: int) -> bytes:
        """What the piece of a frame holds; errors as of `BlockFile.read`."""
        return self.file.read(*self._place(frame))

    def check(self, frame: int) -> None:
        """Compare it with its checksum, once, without unpacking it; errors as of `read`."""
        if frame not in self._whole:
            self.file.check(*self._place(frame))
            self._whole.add(frame)

    def _place(self, frame: int) -> tuple[int, int, int]:
        start = int(self.ends[frame - 1]) if frame else self.begin
        return start, int(self.ends[frame]), int(self.crc32s[frame])
