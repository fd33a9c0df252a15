"""One part of an index: its files, mapped into memory, and checked where they are read."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import numpy as np

from ape_stream import masks
from ape_stream.errors import ConfigError
from ape_stream.index.alignment import Codes
from ape_stream.index.blocks import BlockFile, Pieces
from ape_stream.index.cells import STUFF, THING, clip_logits, inside_boxes, split_maps
from ape_stream.index.dropped.bounds import Spheres
from ape_stream.index.dropped.coarse import CoarseStates
from ape_stream.index.layout import GROUP_FRAMES, crc32_without, part_files
from ape_stream.optional import library

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_stream.index.alignment import Head
    from ape_stream.index.cells import PackedMaps
    from ape_stream.index.layout import Manifest, PartInfo
    from ape_stream.values.instances import Mask

__all__ = ["DamagedPartError", "FrameTable", "Part", "RowTable", "open_part"]


@dataclass(frozen=True, slots=True, eq=False)
class RowTable:
    """N kept queries in the order of frames and, in a frame, of queries; columns are mapped."""

    frame: NDArray[np.int32]
    """(N,) position of the frame in the part; rises."""
    query: NDArray[np.int32]
    """(N,) number of the query in the network."""
    box: NDArray[np.float32]
    """(N, 4) x1 y1 x2 y2 over the image's width and height, 0..1: the network's own box."""
    reference: NDArray[np.float32]
    """(N,) best score of a reference word."""
    track: NDArray[np.int64]
    """(N,) id of the track in the video; 0: not confirmed."""
    drawn: NDArray[np.uint8]
    """(N,) of `surely_drawn`."""
    exponent: NDArray[np.int16]
    """(N,) of `Codes`."""
    state: NDArray[np.int16]
    """(N, C) the codes of `Codes`."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameTable:
    """F frames of one video, in order."""

    index: NDArray[np.int64]
    """(F,) position in the video from 0."""
    time_s: NDArray[np.float64]
    """(F,) seconds."""
    pts: NDArray[np.int64]
    """(F,) in units of the video's time base; -2^63: there is none."""
    size: NDArray[np.int32]
    """(F, 2) height and width, pixels."""
    cells: NDArray[np.int32]
    """(F, 2) height and width of the mask logits."""
    filled: NDArray[np.float64]
    """(F, 2) rows and columns of the mask logits that the image fills."""
    first_row: NDArray[np.int64]
    """(F + 1,) where its rows begin; the last one is N."""
    dropped: NDArray[np.int32]
    """(F,) how many of its queries were dropped."""
    state_crc32: NDArray[np.uint32]
    """(F,) of the states of its rows."""
    coarse_end: NDArray[np.int64]
    """(F,) where the coarse states of 16 frames end among the blocks, under the first of these;
    those of the part begin at 0."""
    coarse_crc32: NDArray[np.uint32]
    """(F,) of that piece."""
    mask_end: NDArray[np.int64]
    """(F,) the same of masks, which begin where coarse states end."""
    mask_crc32: NDArray[np.uint32]
    """(F,) of that piece."""
    file: list[str | None]
    """F image files that they were read from; None for videos."""


NO_PTS: Final = -(2**63)
_ALL: Final = slice(None)
_EPS: Final = 1e-4
"""Above what float32 rounds in a share of an image's side."""
_NONE: Final = slice(0, 0)


class DamagedPartError(ConfigError):
    """What is read of a part does not match its checksum: nothing of it can be trusted."""

    def __init__(self, info: PartInfo, reason: str) -> None:
        super().__init__(f"{info.path}: {reason}")
        self.info = info
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Part:
    """The rows and frames of one part."""

    info: PartInfo
    """What the database knows of it."""
    rows: RowTable
    """Its rows."""
    frames: FrameTable
    """Its frames."""
    spheres: Spheres
    """Around what was dropped."""
    blocks: BlockFile
    """Its masks and coarse states."""
    head: Head
    """Of the index."""
    mask_margin: float | None
    """Of the manifest."""

    def states(self, rows: slice | NDArray[np.intp] = _ALL) -> NDArray[np.float32]:
        """The states of some rows, (n, C) float32.

        Raises:
            DamagedPartError: those of their frames do not match their checksum.
        """
        return self.stored(rows).take(rows).states()

    def stored(self, rows: slice | NDArray[np.intp] = _ALL) -> Codes:
        """The states of all rows as they are stored, once some were checked.

        Raises:
            DamagedPartError: those of the frames of `rows` do not match their checksum.
        """
        self._check(np.unique(self.rows.frame[rows]))
        return Codes(self.rows.state, self.rows.exponent)

    @cached_property
    def _checked(self) -> NDArray[np.bool_]:
        """(F,) whether the states of a frame were compared with their checksum."""
        return np.zeros(len(self.frames.index), np.bool_)

    def _check(self, frames: NDArray[np.int32]) -> None:
        for frame in frames[~self._checked[frames]].tolist():
            own = np.ascontiguousarray(self.rows.state[self.rows_of(frame)])
            if crc32(own.data) != self.frames.state_crc32[frame]:
                raise DamagedPartError(self.info, f"the states of frame {frame} are damaged")
            self._checked[frame] = True

    def verify(self) -> None:
        """Read everything.

        Raises:
            DamagedPartError: something does not match its checksum.
        """
        self._check(np.arange(len(self.frames.index), dtype=np.int32))
        self.coarse(np.arange(len(self.frames.index)))
        for first in range(0, len(self.frames.index), GROUP_FRAMES):
            self.check_masks(first)

    def coarse(self, frames: NDArray[np.intp]) -> CoarseStates:
        """The coarse states of some frames, of each in the order of its spheres.

        Args:
            frames: Positions of frames in the part, rising; at least one.

        Raises:
            DamagedPartError: they do not match their checksum.
        """
        chosen = np.zeros(len(self.coarse_counts), np.bool_)
        chosen[frames] = True
        found = []
        for first in np.unique(frames - frames % GROUP_FRAMES).tolist():
            with self._named():
                every = CoarseStates.from_bytes(self._pieces[0].read(first), self.head.width)
            group = slice(first, first + GROUP_FRAMES)
            wanted = chosen[group]
            if not wanted.all():
                every = every.take(np.flatnonzero(np.repeat(wanted, self.coarse_counts[group])))
            found.append(every)
        return CoarseStates.joined(found)

    @cached_property
    def coarse_counts(self) -> NDArray[np.int64]:
        """(F,) how many coarse states a frame has."""
        ends = np.concatenate([[0], np.cumsum(self.spheres.members, dtype=np.int64)])
        return np.diff(ends[self.spheres.first])

    @cached_property
    def _pieces(self) -> tuple[Pieces, Pieces]:
        """Of coarse states, and of masks."""
        frames = self.frames
        coarse = Pieces(self.blocks, 0, frames.coarse_end, frames.coarse_crc32)
        begin = int(frames.coarse_end[-1])
        return coarse, Pieces(self.blocks, begin, frames.mask_end, frames.mask_crc32)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say which part is damaged."""
        try:
            yield
        except ValueError as error:
            raise DamagedPartError(self.info, str(error)) from error

    def _packed(self, frame: int) -> PackedMaps:
        """The packed masks of a frame."""
        first = frame - frame % GROUP_FRAMES
        if first not in self._unpacked:
            with self._named():
                data = self._pieces[1].read(first)
            own = slice(first, first + GROUP_FRAMES)
            counts = np.diff(self.frames.first_row[first : first + GROUP_FRAMES + 1]).tolist()
            cells = map(tuple, self.frames.cells[own].tolist())
            self._unpacked.clear()  # frames are asked in order
            self._unpacked[first] = split_maps(data, list(zip(counts, cells, strict=True)))
        return self._unpacked[first][frame - first]

    @cached_property
    def _unpacked(self) -> dict[int, list[PackedMaps]]:
        """The packed masks that were read last, by the first of their frames."""
        return {}

    def rows_of(self, frame: int) -> slice:
        """The rows of a frame, by its position in the part."""
        return slice(int(self.frames.first_row[frame]), int(self.frames.first_row[frame + 1]))

    def frames_between(self, start_s: float, end_s: float) -> NDArray[np.intp]:
        """Positions of the frames with start_s <= time_s < end_s."""
        times = self.frames.time_s
        return np.flatnonzero((times >= start_s) & (times < end_s))

    def size(self, frame: int) -> tuple[int, int]:
        """Height and width of a frame, pixels, by its position in the part."""
        height, width = self.frames.size[frame].tolist()
        return height, width

    def masks(self, rows: NDArray[np.intp], stuff: NDArray[np.bool_]) -> list[Mask]:
        """The masks of rows of one frame at its size, as a live run has them.

        Args:
            rows: (n,) positions in the part, at least one.
            stuff: (n,) whether as the mask of stuff, which may reach out of its box.
        """
        frame = int(self.rows.frame[rows[0]])
        cells, filled = self.frames.cells[frame].tolist(), self.frames.filled[frame].tolist()
        edges = inside_boxes(self.rows.box[rows], cells, filled, self.mask_margin)
        own = rows - self.rows_of(frame).start
        logits = self._packed(frame).logits(own, cells, edges)  # (n, h, w)
        cut = clip_logits(logits, edges)
        size = self.size(frame)
        return [
            masks.from_logits(whole if is_stuff else ended, size, filled)
            for whole, ended, is_stuff in zip(logits, cut, stuff.tolist(), strict=True)
        ]

    def surely_drawn(self, rows: NDArray[np.intp], stuff: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether the masks of rows of one frame have a pixel; where not, `masks` says.

        Args:
            rows: (n,) positions in the part, at least one.
            stuff: (n,) whether as the mask of stuff.
        """
        frame = int(self.rows.frame[rows[0]])
        # Of an image that is smaller than its map, there may be no pixel between two cells.
        if (self.frames.size[frame] < self.frames.filled[frame]).any():
            return np.zeros(len(rows), np.bool_)
        wanted = np.where(stuff, np.uint8(STUFF), np.uint8(THING))
        return (self.rows.drawn[rows] & wanted) > 0

    def reach(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Boxes that no pixel of the masks of things leaves, (n, 4) shares of the image's sides."""
        boxes = self.rows.box[rows].astype(np.float64)
        if self.mask_margin is None:
            return np.broadcast_to([0.0, 0.0, 1.0, 1.0], boxes.shape)
        # A cell is inside up to one cell out of the grown box, and a pixel reads up to one further.
        cells = 2 / self.frames.filled[self.rows.frame[rows]][:, ::-1]  # (n, 2) x, y
        more = self.mask_margin * (boxes[:, 2:] - boxes[:, :2]) + cells + _EPS
        return np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + more], axis=1)

    def check_masks(self, frame: int) -> None:
        """Compare the masks of a frame with their checksum, without unpacking them.

        Raises:
            DamagedPartError: they do not match it.
        """
        with self._named():
            self._pieces[1].check(frame - frame % GROUP_FRAMES)

    def upper_bounds(
        self, vectors: NDArray[np.float32], biases: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The highest logit that a dropped query of a frame can have, (F, P); -inf: none was."""
        return self.spheres.upper_bounds(vectors, biases, self.head)


def open_part(root: Path, info: PartInfo, manifest: Manifest, head: Head) -> Part:
    """Map a part into memory; all but its states and blocks is read and compared.

    Raises:
        ConfigError: a file is missing, damaged, or belongs to another index.
    """
    files, states = (
        part_files(root, info.path),
        slice(info.states_at, info.states_at + info.states_bytes),
    )
    rows = _read(files.rows, info.rows_bytes, info.rows_crc32, manifest.identity, states)
    frames = _read(files.frames, info.frames_bytes, info.frames_crc32, manifest.identity)
    blocks = BlockFile(files.blocks, info.blocks_bytes)
    try:
        return Part(
            info=info,
            rows=RowTable(**{f.name: _array(rows[f.name]) for f in fields(RowTable)}),
            frames=_frame_table(frames),
            spheres=_spheres(frames),
            blocks=blocks,
            head=head,
            mask_margin=manifest.mask_margin,
        )
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{info.path} is no part of an index: {error}") from error


def _frame_table(columns: dict[str, Any]) -> FrameTable:
    names = [f.name for f in fields(FrameTable) if f.name not in ("first_row", "file")]
    plain = {name: _array(columns[name]) for name in names}
    counts = _array(columns["rows"])
    first_row = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    return FrameTable(**plain, first_row=first_row, file=columns["file"].to_pylist())


def _spheres(columns: dict[str, Any]) -> Spheres:
    lists = [columns[name] for name in ("centre", "radius", "remainder", "members")]
    first = _array(lists[0].offsets).astype(np.int64)
    own = slice(first[0], first[-1])
    return Spheres(first - first[0], *(_array(column.values)[own] for column in lists))


def _read(path: Path, size: int, crc: int, identity: str, unread: slice = _NONE) -> dict[str, Any]:
    """The columns of a file of one record batch.

    Args:
        path: The file.
        size: Its length, bytes.
        crc: CRC-32 of it.
        identity: `Manifest.identity`.
        unread: Bytes that are not part of the checksum.
    """
    pa = library("pyarrow", "index")
    try:
        with pa.memory_map(str(path)) as source:
            buffer = source.read_buffer()
            _check(path.name, buffer, size, crc, identity, unread)
            with pa.ipc.open_file(pa.BufferReader(buffer)) as reader:
                batch = reader.get_batch(0)
                return dict(zip(batch.schema.names, batch.columns, strict=True))
    except FileNotFoundError:
        raise ConfigError(f"{path.name} is missing") from None
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path.name} cannot be read: {error}") from error


def _check(name: str, buffer: Any, size: int, crc: int, identity: str, unread: slice) -> None:
    """Refuse a file of another index, or one that is damaged."""
    pa, data = library("pyarrow", "index"), memoryview(buffer)
    found = ""
    with suppress(OSError, pa.ArrowException), pa.ipc.open_file(pa.BufferReader(buffer)) as reader:
        found = (reader.schema.metadata or {}).get(b"identity", b"").decode(errors="replace")
    if found and found != identity:  # first: its checksum differs as well
        raise ConfigError(f"{name} is of another index, or of other weights ({found})")
    if len(data) != size:
        raise ConfigError(f"{name} has {len(data)} bytes in place of {size}")
    if crc32_without(data, unread) != crc:
        raise ConfigError(f"{name} is damaged")


def _array(column: Any) -> NDArray[Any]:
    """A column of numbers, or of lists of equal length, as an array on the file's memory."""
    pa = library("pyarrow", "index")
    shape = [len(column)]
    while pa.types.is_fixed_size_list(column.type):
        shape.append(column.type.list_size)
        # Not `flatten`, which imports all of Arrow's compute functions.
        column = column.values[column.offset * shape[-1] :][: len(column) * shape[-1]]
    array: NDArray[Any] = column.to_numpy(zero_copy_only=True)
    return array.reshape(shape)
