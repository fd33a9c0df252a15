"""Shards: the results of a fixed number of frames of one clip, whole or not there at all.

A shard is written under a temporary name, synced and renamed. Its last line is a footer:

    {"count": 128, "crc32": 2774218023, "end": null, "sizes": [512, 498, ...]}

`sizes` are the bytes of each frame's payload, which follow each other from the start of the file
and may hold anything; `end` is what is known at the end of the clip, in its last shard.
"""

from __future__ import annotations

import itertools
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from ape_stream.files import written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["TEMPORARY", "Footer", "ShardFolder", "write_whole"]

TEMPORARY: Final = ".tmp"
"""Suffix of what is not whole; left by a kill, removed by the next run."""
_SUFFIX: Final = ".shard"
_FOOTER_BYTES: Final = 1 << 16
"""Of the end of a file, in which its footer is looked for: it has some ten bytes for each frame."""


@dataclass(frozen=True, slots=True)
class Footer:
    """The last line of a shard."""

    count: int
    """Frames."""
    crc32: int
    """Of everything before the footer."""
    sizes: tuple[int, ...]
    """Bytes of each frame's payload."""
    end: Mapping[str, Any] | None
    """What is known at the end of the clip; None in all shards but its last."""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there as a whole or not at all, also after a power cut.

    Raises:
        SinkError: it cannot be written.
    """
    with written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The process is in the name: a worker that outlives its run may be writing the same file.
        temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class ShardFolder:
    """The shards of one clip.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{number:06d}{_SUFFIX}"

    def write(
        self, number: int, payloads: Sequence[bytes], end: Mapping[str, Any] | None = None
    ) -> None:
        """Write a shard.

        Args:
            number: From 0.
            payloads: One for each frame.
            end: In the clip's last shard, what is known at its end.

        Raises:
            SinkError: it cannot be written.
        """
        body = b"".join(payloads)
        footer = {
            "count": len(payloads),
            "crc32": crc32(body),
            "end": end,
            "sizes": [len(payload) for payload in payloads],
        }
        line = json.dumps(footer, ensure_ascii=False, sort_keys=True)
        write_whole(self.path(number), body + b"\n" + line.encode())

    def numbers(self) -> set[int]:
        """The numbers of the shards that are whole by their footers; others are removed."""
        numbers = set()
        for path in self.folder.glob(f"*{_SUFFIX}"):
            if self.footer(number := int(path.stem)) is not None:
                numbers.add(number)
            else:
                path.unlink()
        return numbers

    def footer(self, number: int) -> Footer | None:
        """The footer of a shard; None where the file is not there or not whole."""
        try:
            with self.path(number).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _FOOTER_BYTES))
                head, _, line = file.read().rpartition(b"\n")
                footer = _parsed(line)
        except OSError:
            return None
        whole = footer is not None and sum(footer.sizes) + 1 + len(line) == size
        return footer if whole and (head or size == len(line) + 1) else None

    def payloads(self, number: int) -> list[bytes]:
        """The payloads of a shard, one for each frame.

        Raises:
            ValueError: the shard is damaged.
        """
        footer = self.footer(number)
        with self.path(number).open("rb") as file:
            body = file.read(sum(footer.sizes) if footer else 0)
        if footer is None or crc32(body) != footer.crc32:
            raise ValueError(f"shard {self.path(number).name} is damaged")
        starts = [0]
        for size in footer.sizes:
            starts.append(starts[-1] + size)
        return [body[a:b] for a, b in itertools.pairwise(starts)]

    def last(self) -> int | None:
        """The number of the clip's last shard; None where its end is not known yet."""
        for number in sorted(self.numbers(), reverse=True):
            footer = self.footer(number)
            if footer is not None and footer.end is not None:
                return number
        return None

    def end(self) -> Mapping[str, Any] | None:
        """What is known at the end of the clip; None while one of its shards is missing."""
        last = self.last()
        footer = None if last is None else self.footer(last)
        if last is None or footer is None or len(self.numbers()) <= last:
            return None
        return footer.end

    def frames(self) -> Iterator[bytes]:
        """The payloads of all frames of a clip whose shards are all there.

        Raises:
            ValueError: a shard is damaged; it has been removed, so that it is made again.
        """
        last = self.last()
        for number in range(0 if last is None else last + 1):
            try:
                payloads = self.payloads(number)
            except (OSError, ValueError) as error:
                with suppress(OSError):
                    self.path(number).unlink()
                raise ValueError(f"{error}") from error
            yield from payloads


def _parsed(line: bytes) -> Footer | None:
    try:
        given = json.loads(line)
        return Footer(given["count"], given["crc32"], tuple(given["sizes"]), given["end"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
