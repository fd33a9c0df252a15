"""ROS 2 messages <-> CDR, with the pixels of an image copied as seldom as can be.

`rosbags` reads and writes every type, but would fill 6 MB with zeros, copy the pixels over them and
have them copied again by whoever needs `bytes`: here it only writes what stands before them.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any, Final

import numpy as np

from ape_stream.errors import SourceError
from ape_stream.optional import library

__all__ = ["Packer", "unpack"]

_NO_BYTES: Final = np.empty(0, np.uint8)
_LENGTH: Final = struct.Struct("=I")  # in this machine's byte order, as rosbags writes the rest


class Packer:
    """Writes messages of one type into a buffer of its own.

    The buffer stays: a new one for each image would come from and go back to the system, and half
    of a writer's time went into its empty pages.

    Args:
        store: A type store of rosbags.
        kind: The ROS 2 type.
    """

    def __init__(self, store: Any, kind: str) -> None:
        self._store = store
        self._kind = kind
        self._blob_field = _closing_blob(store, kind)
        self._room = bytearray()

    def pack(self, message: Any) -> memoryview:
        """CDR of a message, filled up to a multiple of four bytes; it lasts until the next call."""
        blob = _NO_BYTES
        if self._blob_field is not None:
            blob = getattr(message, self._blob_field)
            message = replace(message, **{self._blob_field: _NO_BYTES})
        head = self._store.serialize_cdr(message, self._kind)
        used = len(head) + blob.size
        padded = used + -used % 4
        if len(self._room) < padded:
            self._room = bytearray(padded)
        room = memoryview(self._room)[:padded]
        room[: len(head)] = head
        if self._blob_field is not None:
            _LENGTH.pack_into(room, len(head) - _LENGTH.size, blob.size)
            room[len(head) : used] = blob.data
        room[used:] = bytes(padded - used)
        return room


def unpack(store: Any, data: bytes, kind: str) -> Any:
    """The message in some CDR; its arrays look into `data`.

    Raises:
        SourceError: the bytes are no message of this type.
    """
    broken = library("rosbags.serde", "dds").SerdeError
    try:
        return store.deserialize_cdr(memoryview(data), kind)
    except broken as error:
        raise SourceError(f"no {kind}: {error}") from error


def _closing_blob(store: Any, kind: str) -> str | None:
    """The last field of a type where that is a `uint8[]`, as in Image and CompressedImage."""
    field, (node, detail) = store.fielddefs[kind][1][-1]
    is_blob = node.name == "SEQUENCE" and detail == ((type(node).BASE, ("uint8", 0)), 0)
    return str(field) if is_blob else None
