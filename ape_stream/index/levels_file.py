"""Levels of a part on disk, next to it: made when an index is, or later where they are not there.

One Arrow file of one row, each column a list: mapped, so that opening an index reads none of it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import fields
from functools import reduce
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import numpy as np

from ape_stream.index.layout import PARTS
from ape_stream.index.levels import Levels, build_levels
from ape_stream.index.part import open_part
from ape_stream.native.threads import one_blas_thread
from ape_stream.optional import library

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_stream.index.part import Part
    from ape_stream.index.store import Store

__all__ = ["levels_bytes", "levels_of", "levels_size", "write_levels"]

_VERSION: Final = "2"
_SUFFIX: Final = ".levels.arrow"


def levels_of(root: Path, part: Part) -> Levels:
    """The levels of a part that has rows; they are written next to it where that is possible."""
    info = part.info
    path = root / f"{info.path}{_SUFFIX}"
    identity = f"{_VERSION}-{info.rows_crc32:08x}-{info.states_crc32:08x}-{info.rows_bytes}"
    found = _read(path, identity)
    if found is not None and found.rows == part.info.rows:
        return found
    with one_blas_thread():
        made = build_levels(part.states(), part.rows.track)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):  # an index that cannot be written is searched all the same
        temporary.write_bytes(levels_bytes(made, identity))
        temporary.replace(path)
    return made


def write_levels(store: Store) -> None:
    """Make the levels of all parts that have none yet, so that the first search finds them.

    Args:
        store: Nobody else writes to it.
    """
    for left in (store.root / PARTS).rglob(f".*{_SUFFIX}.*"):  # of a process that was killed
        left.unlink(missing_ok=True)
    for info in (part.info for part in store.parts if part.info.rows):
        # Opened once more, and closed: what was read of a mapped file stays in memory.
        levels_of(store.root, open_part(store.root, info, store.manifest, store.head))


def levels_size(root: Path, part: Part) -> int:
    """Bytes of the levels of a part; 0 where they were not made."""
    try:
        return (root / f"{part.info.path}{_SUFFIX}").stat().st_size
    except OSError:
        return 0


def levels_bytes(levels: Levels, identity: str) -> bytes:
    """The file of some levels.

    Args:
        levels: Of one part.
        identity: Of the rows they were made from.
    """
    pa = library("pyarrow", "index")
    arrays = {f.name: np.asarray(getattr(levels, f.name)) for f in fields(Levels)}
    columns = {name: _list_of(array) for name, array in arrays.items()}
    shapes = {name: " ".join(map(str, array.shape)) for name, array in arrays.items()}
    label = {"identity": identity, "crc32": str(_crc32(arrays)), **shapes}
    batch = pa.RecordBatch.from_pydict(columns, metadata=label)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _list_of(array: NDArray[Any]) -> Any:
    pa = library("pyarrow", "index")
    return pa.LargeListArray.from_arrays(
        pa.array([0, array.size], pa.int64()), pa.array(array.ravel())
    )


def _crc32(arrays: dict[str, NDArray[Any]]) -> int:
    return reduce(
        lambda crc, array: crc32(np.ascontiguousarray(array).data, crc), arrays.values(), 0
    )


def _read(path: Path, identity: str) -> Levels | None:
    """The levels in a file; None where it is missing, damaged or of other rows."""
    pa = library("pyarrow", "index")
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            label = {k.decode(): v.decode() for k, v in (reader.schema.metadata or {}).items()}
            if label.get("identity") != identity:
                return None
            batch = reader.get_batch(0)
        arrays = {
            name: column.values.to_numpy(zero_copy_only=True).reshape(
                [int(side) for side in label[name].split()]
            )
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }
        return Levels(**arrays) if label["crc32"] == str(_crc32(arrays)) else None
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None
