"""A frame of an index as bytes of a shard, and back: numbers as JSON, arrays as they are."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream.indexing.parts import IndexedFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["from_payload", "to_payload"]


def to_payload(frame: IndexedFrame) -> bytes:
    """The bytes of a frame: the same for the same values."""
    head: dict[str, Any] = {}
    arrays: list[tuple[str, str, tuple[int, ...]]] = []
    data: list[bytes] = []
    for field in fields(IndexedFrame):
        value = getattr(frame, field.name)
        if isinstance(value, np.ndarray):
            arrays.append((field.name, value.dtype.str, value.shape))
            data.append(value.tobytes())
        elif field.name == "masks":
            head["masks"] = [len(record) for record in value]
        else:
            head[field.name] = value
    line = json.dumps({**head, "arrays": arrays}, sort_keys=True)
    return b"".join([line.encode(), b"\n", *data, *frame.masks])


def from_payload(data: bytes) -> IndexedFrame:
    """Undo `to_payload`."""
    line, _, body = data.partition(b"\n")
    values = json.loads(line)
    at = 0
    for name, dtype, shape in values.pop("arrays"):
        array: NDArray[Any] = np.frombuffer(body, dtype, int(np.prod(shape)), at).reshape(shape)
        values[name] = array
        at += array.nbytes
    records = []
    for size in values["masks"]:
        records.append(body[at : at + size])
        at += size
    values["masks"] = records
    for name in ("size", "cells", "filled", "time_base"):
        values[name] = None if values[name] is None else tuple(values[name])
    return IndexedFrame(**values)
