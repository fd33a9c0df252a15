"""A frame of an index as bytes of a shard, and back: numbers as JSON, arrays as they are."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.index.cells import PackedMaps
from ape_stream.indexing.parts import IndexedFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["from_payload", "to_payload"]

_MASKS: Final = tuple(field.name for field in fields(PackedMaps))
_NAMES: Final = tuple(field.name for field in fields(IndexedFrame) if field.name != "masks")


def to_payload(frame: IndexedFrame) -> bytes:
    """The bytes of a frame: the same for the same values."""
    head: dict[str, Any] = {}
    arrays: list[tuple[str, str, tuple[int, ...]]] = []
    data: list[bytes] = []
    every = [(name, getattr(frame, name)) for name in _NAMES]
    for name, value in [*every, *((name, getattr(frame.masks, name)) for name in _MASKS)]:
        if isinstance(value, np.ndarray):
            arrays.append((name, value.dtype.str, value.shape))
            data.append(value.tobytes())
        else:
            head[name] = value
    line = json.dumps({**head, "arrays": arrays}, sort_keys=True)
    return b"".join([line.encode(), b"\n", *data])


def from_payload(data: bytes) -> IndexedFrame:
    """Undo `to_payload`."""
    line, _, body = data.partition(b"\n")
    values = json.loads(line)
    at = 0
    for name, dtype, shape in values.pop("arrays"):
        array: NDArray[Any] = np.ndarray(shape, dtype, body, at)
        values[name] = array
        at += array.nbytes
    values["masks"] = PackedMaps(*(values.pop(name) for name in _MASKS))
    for name in ("size", "cells", "filled", "time_base"):
        values[name] = None if values[name] is None else tuple(values[name])
    return IndexedFrame(**values)
