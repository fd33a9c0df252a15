"""The frame of every wire message: twelve fixed bytes, a msgpack map (the head), binary parts.

`ape_stream.wire.messages` knows what the keys mean. This module finds them, and checks the type and
range of every value before it is used.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from ape_stream.errors import WireError
from ape_stream.optional import library

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "Head",
    "WireLimits",
    "assemble",
    "finite",
]

MAGIC: Final = b"APES"
FORMAT_VERSION: Final = 1
KIND_RESULT: Final = 1
KIND_FRAME: Final = 2
KIND_END: Final = 3
MAX_MESSAGE_BYTES: Final = 2**28
"""No reader takes a longer message. The largest image as bare pixels, with label map and masks, is
shorter."""
_PREFIX: Final = struct.Struct("<4sBBHI")  # magic, version, kind, reserved, head length


@dataclass(frozen=True, slots=True)
class WireLimits:
    """The most that a message may ask of its reader."""

    frame_pixels: int = 2**25
    """Height x width of an image (8K fits)."""
    mask_pixels: int = 2**28
    """Pixels of all masks together, after decoding."""
    instances: int = 2**16
    """Regions in one frame."""
    head_bytes: int = 2**24
    """Length of the head."""


def assemble(kind: int, head: dict[str, Any], parts: list[tuple[str, str, bytes]]) -> bytes:
    """Write a message of this kind: prefix, head, then (name, codec, bytes) parts in order.

    Raises:
        WireError: it is longer than any reader takes.
        PluginError: msgpack is not installed.
    """
    table = [[name, codec, len(data)] for name, codec, data in parts]
    packed = library("msgpack", "zmq").packb({**head, "parts": table})
    prefix = _PREFIX.pack(MAGIC, FORMAT_VERSION, kind, 0, len(packed))
    pieces = [prefix, packed, *(data for _, _, data in parts)]
    if (length := sum(map(len, pieces))) > MAX_MESSAGE_BYTES:
        raise WireError(f"a message of {length} bytes: a reader takes {MAX_MESSAGE_BYTES} at most")
    return b"".join(pieces)


class Head:
    """A message's head, read key by key; every value is checked for type and range.

    Raises:
        WireError: on construction, when the bytes are not a message of this version; from each
            method, when the key is missing or its value is not of that kind.
    """

    def __init__(self, data: bytes | memoryview, limits: WireLimits) -> None:
        view = memoryview(data).cast("B")  # so that offsets count bytes
        self.kind, start, end = _check_prefix(view, limits)
        self.values = _unpack_head(view[start:end])
        self.parts = self._find_parts(view[end:])

    def _find_parts(self, rest: memoryview) -> dict[str, tuple[str, memoryview]]:
        found: dict[str, tuple[str, memoryview]] = {}
        at = 0
        for entry in self._typed("parts", list):
            name, codec, length = _part_entry(entry)
            if not 0 <= length <= len(rest) - at:
                raise WireError(f"part {name!r} of {length} bytes reaches over the message's end")
            found[name] = (codec, rest[at : at + length])
            at += length
        if at != len(rest):
            raise WireError(f"{len(rest) - at} bytes follow the last part")
        return found

    def _typed(self, key: str, kind: type) -> Any:
        value = self.values.get(key)
        if type(value) is not kind:  # not isinstance: True would pass for an int
            raise WireError(f"{key!r} is missing or not of type {kind.__name__}")
        return value

    def text(self, key: str) -> str:
        """A string."""
        return cast("str", self._typed(key, str))

    def whole(self, key: str, low: int = 0, high: int = 2**63 - 1) -> int:
        """A whole number within low..high."""
        value = self._typed(key, int)
        if not low <= value <= high:
            raise WireError(f"{key!r} is {value}, not within {low}..{high}")
        return cast("int", value)

    def number(self, key: str) -> float:
        """A finite number."""
        return finite(key, self.values.get(key))

    def column(self, key: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """An array of exactly this shape."""
        raw = self._typed(key, bytes)
        if len(raw) != dtype.itemsize * math.prod(shape):
            raise WireError(f"column {key!r} has {len(raw)} bytes, not those of shape {shape}")
        return np.frombuffer(raw, dtype).reshape(shape)  # a read-only view, no copy

    def listed(self, key: str) -> list[Any]:
        """A list of anything."""
        return cast("list[Any]", self._typed(key, list))

    def mapping(self, key: str) -> Mapping[str, Any]:
        """A map with text keys."""
        return cast("dict[str, Any]", self._typed(key, dict))


def _part_entry(entry: Any) -> tuple[str, str, int]:
    match entry:
        case [str(name), str(codec), int(length)] if type(length) is int:
            return name, codec, length
    raise WireError("a part is not described as [name, codec, length]")


def finite(name: str, value: Any) -> float:
    """Read a number that other languages may have written as a whole one."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise WireError(f"{name!r} is {value!r}, not a finite number")
    return float(value)


def _check_prefix(view: memoryview, limits: WireLimits) -> tuple[int, int, int]:
    """Kind, and where the head starts and ends."""
    if len(view) < _PREFIX.size:
        raise WireError(f"a message has at least {_PREFIX.size} bytes, this one {len(view)}")
    magic, version, kind, _, length = _PREFIX.unpack_from(view)
    if magic != MAGIC:
        raise WireError(f"a message begins with {MAGIC!r}, this one with {magic!r}")
    if version != FORMAT_VERSION:
        raise WireError(
            f"the message has format version {version}, this program reads {FORMAT_VERSION}:"
            " bring both ends to the same release"
        )
    # Before msgpack sees it: its own objects take many times the bytes of the head.
    if length > min(limits.head_bytes, len(view) - _PREFIX.size):
        raise WireError(f"a head of {length} bytes does not fit the message")
    return kind, _PREFIX.size, _PREFIX.size + length


def _unpack_head(packed: memoryview) -> dict[str, Any]:
    msgpack = library("msgpack", "zmq")
    try:
        # Text as str, keys text or bytes, no extension types (they could stand for any object).
        head = msgpack.unpackb(packed, raw=False, strict_map_key=True, max_ext_len=0)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise WireError(f"the head is not msgpack: {error}") from error
    if not isinstance(head, dict):
        raise WireError("the head is not a map")
    return head
