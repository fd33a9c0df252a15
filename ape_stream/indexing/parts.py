"""Frames and rows, gathered and written as a part: files that never change again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from ape_stream.batch.shards import write_whole
from ape_stream.index.blocks import pack_piece
from ape_stream.index.cells import join_maps
from ape_stream.index.dropped.coarse import CoarseStates
from ape_stream.index.layout import GROUP_FRAMES, crc32_without, part_files
from ape_stream.index.part import NO_PTS
from ape_stream.optional import library

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_stream.index.cells import PackedMaps

__all__ = ["IndexedFrame", "write_part"]


@dataclass(frozen=True, slots=True, eq=False)
class IndexedFrame:
    """What an index keeps of one frame: K rows, and spheres around what it drops."""

    index: int
    """Position in the video from 0."""
    time_s: float
    """Seconds."""
    pts: int | None
    """In units of the video's time base."""
    time_base: tuple[int, int] | None
    """Seconds of one unit of `pts`, as a fraction."""
    file: str | None
    """The image file it was read from."""
    size: tuple[int, int]
    """Height and width, pixels."""
    cells: tuple[int, int]
    """Height and width of the mask logits."""
    filled: tuple[float, float]
    """Rows and columns of the mask logits that the image fills."""
    query: NDArray[np.int32]
    """(K,) numbers of the kept queries."""
    box: NDArray[np.float32]
    """(K, 4) x1 y1 x2 y2 over the image's sides."""
    reference: NDArray[np.float32]
    """(K,) best score of a reference word."""
    exponent: NDArray[np.int16]
    """(K,) of `Codes`."""
    state: NDArray[np.int16]
    """(K, C) of `Codes`."""
    drawn: NDArray[np.uint8]
    """(K,) of `surely_drawn`."""
    masks: PackedMaps
    """Of the K rows."""
    dropped: int
    """How many queries were dropped."""
    centre: NDArray[np.float16]
    """(S, k) of the spheres around them."""
    radius: NDArray[np.float32]
    """(S,)."""
    remainder: NDArray[np.float32]
    """(S,)."""
    members: NDArray[np.int32]
    """(S,) how many coarse states are in each."""
    coarse: NDArray[np.uint8]
    """`CoarseStates.to_bytes`, in the order of spheres."""


def write_part(
    root: Path,
    path: str,
    frames: Sequence[IndexedFrame],
    tracks: Sequence[NDArray[np.int64]],
    identity: str,
) -> dict[str, int]:
    """Write the files of a part.

    Args:
        root: Folder of the index.
        path: Of the part; see `PartInfo.path`.
        frames: At least one.
        tracks: For each frame, the (K,) track ids of its rows.
        identity: `Manifest.identity`.

    Returns:
        Sizes, checksums and where states are, as fields of `PartInfo`.

    Raises:
        SinkError: they cannot be written.
    """
    files = part_files(root, path)
    pieces, places = _blocks(frames)
    rows = _file_bytes(_row_columns(frames, tracks), identity)
    table = _file_bytes({**_frame_columns(frames), **places}, identity)
    states = sum(frame.state.nbytes for frame in frames)
    at = _states_at(rows)
    own = slice(at, at + states)
    write_whole(files.rows, rows)
    write_whole(files.frames, table)
    write_whole(files.blocks, pieces)
    return {
        "rows_bytes": len(rows),
        "rows_crc32": crc32_without(rows, own),
        "states_at": at,
        "states_bytes": states,
        "states_crc32": crc32(rows[own]),
        "frames_bytes": len(table),
        "frames_crc32": crc32(table),
        "blocks_bytes": len(pieces),
    }


def _blocks(frames: Sequence[IndexedFrame]) -> tuple[bytes, dict[str, Any]]:
    """The file of blocks, and the columns of frames that say where what is, and its checksum."""
    pa = library("pyarrow", "index")
    columns = {"state_crc32": pa.array([crc32(f.state.data) for f in frames], pa.uint32())}
    every: list[bytes] = []
    end = 0
    for name, join in (("coarse", _coarse), ("mask", _masks)):
        # What some frames have is one piece, which is under the first of these.
        pieces = [b""] * len(frames)
        for first in range(0, len(frames), GROUP_FRAMES):
            pieces[first] = pack_piece(join(frames[first : first + GROUP_FRAMES]))
        ends = end + np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        end = int(ends[-1])
        columns[f"{name}_end"] = pa.array(ends)
        columns[f"{name}_crc32"] = pa.array([crc32(piece) for piece in pieces], pa.uint32())
        every += pieces
    return b"".join(every), columns


def _coarse(frames: Sequence[IndexedFrame]) -> bytes:
    width = frames[0].state.shape[1]
    each = [CoarseStates.from_bytes(frame.coarse.tobytes(), width) for frame in frames]
    return CoarseStates.joined(each).to_bytes()


def _masks(frames: Sequence[IndexedFrame]) -> bytes:
    return join_maps([frame.masks for frame in frames])


def _states_at(rows: bytes) -> int:
    """Where the states begin in a file of rows."""
    pa = library("pyarrow", "index")
    data = pa.py_buffer(rows)
    with pa.ipc.open_file(pa.BufferReader(data)) as reader:
        buffer = reader.get_batch(0).column("state").flatten().buffers()[1]
    return 0 if buffer is None or not buffer.size else int(buffer.address - data.address)


def _row_columns(
    frames: Sequence[IndexedFrame], tracks: Sequence[NDArray[np.int64]]
) -> dict[str, Any]:
    pa = library("pyarrow", "index")
    counts = [len(frame.query) for frame in frames]
    return {
        "frame": pa.array(np.repeat(np.arange(len(frames), dtype=np.int32), counts)),
        "query": pa.array(np.concatenate([frame.query for frame in frames])),
        "box": _lists(np.concatenate([frame.box for frame in frames])),
        "reference": pa.array(np.concatenate([frame.reference for frame in frames])),
        "drawn": pa.array(np.concatenate([frame.drawn for frame in frames])),
        "track": pa.array(np.concatenate(tracks)),
        "exponent": pa.array(np.concatenate([frame.exponent for frame in frames])),
        "state": _lists(np.concatenate([frame.state for frame in frames])),
    }


def _frame_columns(frames: Sequence[IndexedFrame]) -> dict[str, Any]:
    pa = library("pyarrow", "index")
    counts = np.cumsum([0, *(len(frame.radius) for frame in frames)], dtype=np.int32)
    spheres = {
        "centre": _lists(np.concatenate([frame.centre for frame in frames])),
        "radius": pa.array(np.concatenate([frame.radius for frame in frames])),
        "remainder": pa.array(np.concatenate([frame.remainder for frame in frames])),
        "members": pa.array(np.concatenate([frame.members for frame in frames])),
    }
    lists = {name: pa.ListArray.from_arrays(counts, values) for name, values in spheres.items()}
    return {
        "index": pa.array([frame.index for frame in frames], pa.int64()),
        "time_s": pa.array([frame.time_s for frame in frames], pa.float64()),
        "pts": pa.array([NO_PTS if f.pts is None else f.pts for f in frames], pa.int64()),
        "size": _lists(np.array([frame.size for frame in frames], np.int32)),
        "cells": _lists(np.array([frame.cells for frame in frames], np.int32)),
        "filled": _lists(np.array([frame.filled for frame in frames], np.float64)),
        "rows": pa.array([len(frame.query) for frame in frames], pa.int32()),
        "dropped": pa.array([frame.dropped for frame in frames], pa.int32()),
        "file": pa.array([frame.file for frame in frames], pa.string()),
        **lists,
    }


def _lists(values: NDArray[Any]) -> Any:
    """(N, C) numbers as an Arrow array of N lists of C."""
    pa = library("pyarrow", "index")
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _file_bytes(columns: dict[str, Any], identity: str) -> bytes:
    """One record batch as a file: uncompressed, so that it can be mapped."""
    pa = library("pyarrow", "index")
    batch = pa.RecordBatch.from_pydict(columns, metadata={"identity": identity})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data
