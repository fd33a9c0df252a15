"""What an index holds, and where."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

from ape_stream.errors import ConfigError
from ape_stream.tables import read_table

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "DATABASE",
    "FORMAT",
    "GROUP_FRAMES",
    "HEAD",
    "MANIFEST",
    "PARTS",
    "PART_FRAMES",
    "REFERENCE",
    "SOURCES",
    "Manifest",
    "PartFiles",
    "PartInfo",
    "Track",
    "Video",
    "crc32_without",
    "part_files",
    "read_manifest",
]

FORMAT: Final = 6
"""Of everything in an index; another one is refused."""
MANIFEST: Final = "manifest.json"
HEAD: Final = "head.npz"
DATABASE: Final = "index.sqlite"
REFERENCE: Final = "reference.npz"
"""Reference words: `texts` (P,), `vectors` (P, C) and `biases` (P,)."""
SOURCES: Final = "sources.json"
"""The folder that the videos were read from; of use on the same machine only."""
PARTS: Final = "parts"
PART_FRAMES: Final = 1024
"""Frames of a part: at 50 rows of 256 numbers in 16 bits, 26 MB."""
GROUP_FRAMES: Final = 16
"""Frames whose masks are compressed together, and whose coarse states are."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What made an index: its rows are of no use to another network."""

    format: int
    """`FORMAT`."""
    model: str
    """The model's name."""
    weights: str
    """Digest of the files of the model."""
    head: str
    """`Head.digest`."""
    text_tower: str
    """SHA-256 (hex) of the text tower's weights; part of the key of a cached embedding."""
    text_dtype: str
    """Arithmetic of the text tower: part of that key, too."""
    text_pooling: str
    """How word states became one vector: the same."""
    resizing: str
    """How images were resized for the network; see `NetworkFacts.resizing`."""
    width: int
    """C, numbers of a state."""
    dtype: str
    """Of the network, to which embeddings are rounded: "float32", "float16" or "bfloat16"."""
    threshold: float
    """Lowest score that a live run keeps where a prompt has none of its own."""
    mask_margin: float | None
    """How far the mask of a thing reaches out of its box, as a share of it; None: it is not cut."""
    per_prompt: int
    """Most regions of one prompt in one frame."""
    stuff: tuple[str, ...]
    """Clean texts that are stuff without being declared so."""
    keep_score: float | None
    """Queries that no reference word finds with this score were dropped; None: none was."""
    keep_rows: int | None
    """Most rows of one frame; None: no limit."""
    reference: int
    """How many reference words decided it."""
    reference_digest: str
    """SHA-256 (hex) of these words."""
    version: str
    """Of ape_stream."""
    names: tuple[str, ...] = ()
    """Clean texts of several words that the network learnt as names; others are sentences."""

    @property
    def identity(self) -> str:
        """Parts and index belong together where this is equal."""
        return f"{self.weights[:16]}-{self.head[:16]}-{self.resizing}"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Video:
    """One clip, or one stream."""

    id: int
    """From 1."""
    name: str
    """Unique in the index: "siteA/day1/clip00"."""
    source: str | None
    """The file or URL, as the clip's plan has it."""
    width: int
    """Of its first frame, pixels."""
    height: int
    """The same."""
    time_base: tuple[int, int] | None
    """Unit of `pts`, seconds."""
    rate: tuple[int, int] | None
    """Frames per second that the container states."""
    frames: int
    """Frames in the index."""
    problem: str | None
    """Why it is not whole, where it is not."""


@dataclass(frozen=True, slots=True)
class PartInfo:
    """One part, as the database knows it."""

    video: int
    """Id of its video."""
    number: int
    """From 0 in its video."""
    path: str
    """Below the index, without the suffix: "parts/clip00/000003"."""
    frames: int
    """Frames."""
    rows: int
    """Kept queries."""
    dropped: int
    """Queries that were not kept."""
    start_s: float
    """Lowest time of a frame."""
    end_s: float
    """Highest time of a frame."""
    rows_bytes: int
    """Size of the file of rows."""
    rows_crc32: int
    """Of that file without the states, which are checked where they are used."""
    states_at: int
    """Where in that file the states are."""
    states_bytes: int
    """Size of the states."""
    states_crc32: int
    """Of the states."""
    frames_bytes: int
    """Size of the file of frames."""
    frames_crc32: int
    """Of that file."""
    blocks_bytes: int
    """Size of the file of blocks; see `BlockFile`."""


@dataclass(frozen=True, slots=True)
class Track:
    """One object through a video, under any name."""

    video: int
    """Id of its video."""
    id: int
    """From 1 in its video; `rows.track` of parts."""
    first_frame: int
    """Index of its first frame."""
    last_frame: int
    """Index of its last frame."""
    start_s: float
    """Time of its first frame."""
    end_s: float
    """Time of its last frame."""
    frames: int
    """In how many frames it was found."""


class PartFiles(NamedTuple):
    """The files of a part."""

    rows: Path
    frames: Path
    blocks: Path


def part_files(root: Path, path: str) -> PartFiles:
    """The files of a part.

    Args:
        root: Folder of the index.
        path: `PartInfo.path`.
    """
    return PartFiles(
        root / f"{path}.rows.arrow", root / f"{path}.frames.arrow", root / f"{path}.blocks.zst"
    )


def crc32_without(data: bytes | memoryview, unread: slice) -> int:
    """CRC-32 of a file but for some bytes, such as states, which have checksums of their own."""
    data = memoryview(data)
    return crc32(data[unread.stop :], crc32(data[: unread.start]))


def read_manifest(root: Path) -> Manifest:
    """Read the manifest of an index.

    Raises:
        ConfigError: there is none, or one of another version.
    """
    path = root / MANIFEST
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{root} is no index: it has no {MANIFEST}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): make the index again") from error
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise ConfigError(f"{path} was written by another version: make the index again")
    return read_table(Manifest, table, str(path))
