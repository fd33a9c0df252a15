"""ROS 2 messages to CDR and back; the pixels of an image are copied once.

`rosbags` reads and writes every type. For an image it would fill 6 MB with zeros, copy the pixels
over them, and copy all of it again into `bytes`; so it only writes what precedes the pixels here.
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
    """Writes messages of one type into a buffer that it keeps.

    A new buffer for each image would be allocated from the system and returned to it; page faults
    took half of a writer's time.

    Args:
        store: A type store of rosbags.
        kind: The ROS 2 type.
    """

    def __init__(self, store: Any, kind: str) -> None:
        self._store = store
        self._kind = kind
        self._blob_field = _last_blob(store, kind)
        self._buffer = bytearray()

    def pack(self, message: Any) -> memoryview:
        """CDR of a message, padded to a multiple of four bytes; valid until the next call."""
        # rosbags writes the message without its pixels; they are copied behind it, once.
        blob = _NO_BYTES
        if self._blob_field is not None:
            blob = getattr(message, self._blob_field)
            message = replace(message, **{self._blob_field: _NO_BYTES})
        head = self._store.serialize_cdr(message, self._kind)
        used = len(head) + blob.size
        padded = used + -used % 4
        if len(self._buffer) < padded:
            self._buffer = bytearray(padded)
        packed = memoryview(self._buffer)[:padded]
        packed[: len(head)] = head
        if self._blob_field is not None:
            # The empty field is last, so its length is the last number of what rosbags wrote.
            _LENGTH.pack_into(packed, len(head) - _LENGTH.size, blob.size)
            packed[len(head) : used] = blob.data
        packed[used:] = bytes(padded - used)
        return packed


def unpack(store: Any, data: bytes, kind: str) -> Any:
    """The message in CDR bytes; its arrays are views of `data`.

    Raises:
        SourceError: the bytes are not a message of this type.
    """
    serde_error = library("rosbags.serde", "dds").SerdeError
    try:
        return store.deserialize_cdr(memoryview(data), kind)
    except serde_error as error:
        raise SourceError(f"not a {kind}: {error}") from error


def _last_blob(store: Any, kind: str) -> str | None:
    """The name of a type's last field where it is a `uint8[]`, as in Image, else None."""
    # detail of a sequence: ((node, (base type, length limit)), sequence limit); 0 is no limit.
    field, (node, detail) = store.fielddefs[kind][1][-1]
    is_blob = node.name == "SEQUENCE" and detail == ((type(node).BASE, ("uint8", 0)), 0)
    return str(field) if is_blob else None
