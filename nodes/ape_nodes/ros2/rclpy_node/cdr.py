"""Messages that carry many bytes, read from their CDR: the header as values, the bytes as a view.

The encoding is PLAIN_CDR in both byte orders (OMG DDS-XTypes 1.3, 7.4 and 7.6.2), which every RMW
sends: four bytes name it, and what follows is aligned to the size of each value, counted from
their end. Every length is checked before anything is made of it. `dds.cdr` does it for all types by
rosbags, which a ROS installation does not have.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ape_stream.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["READERS", "CompressedImage", "Header", "Image", "PointCloud2", "PointField", "Stamp"]

_ORDERS: Final = {b"\x00\x00": ">", b"\x00\x01": "<"}
"""The encoding's name -> byte order of `struct`."""
_START: Final = 4
_MOST_FIELDS: Final = 256
"""Of a point: an object is made for each, so a count that nobody needs is refused."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """builtin_interfaces/msg/Time."""

    sec: int
    """Seconds, signed 32 bits."""
    nanosec: int
    """Nanoseconds of that second."""


@dataclass(frozen=True, slots=True)
class Header:
    """std_msgs/msg/Header."""

    stamp: Stamp
    """When the image was taken."""
    frame_id: str
    """Its coordinate frame."""


@dataclass(frozen=True, slots=True)
class Image:
    """sensor_msgs/msg/Image."""

    header: Header
    """Stamp and frame."""
    height: int
    """Rows."""
    width: int
    """Columns."""
    encoding: str
    """Form of a pixel, as "bgr8"."""
    is_bigendian: int
    """Byte order of 16-bit pixels, 0 or 1."""
    step: int
    """Bytes of a row with its padding."""
    data: memoryview
    """All rows."""


@dataclass(frozen=True, slots=True)
class CompressedImage:
    """sensor_msgs/msg/CompressedImage."""

    header: Header
    """Stamp and frame."""
    format: str
    """Of what is compressed, and how."""
    data: memoryview
    """The file's bytes."""


@dataclass(frozen=True, slots=True)
class PointField:
    """sensor_msgs/msg/PointField."""

    name: str
    """As "x"."""
    offset: int
    """Bytes from the start of a point."""
    datatype: int
    """Type by its number; 7 is a 32-bit float."""
    count: int
    """Values of the field."""


@dataclass(frozen=True, slots=True)
class PointCloud2:
    """sensor_msgs/msg/PointCloud2."""

    header: Header
    """Stamp and frame."""
    height: int
    """Rows, 1 of an unorganised cloud."""
    width: int
    """Points of a row."""
    fields: tuple[PointField, ...]
    """What a point holds."""
    is_bigendian: bool
    """Byte order of the values."""
    point_step: int
    """Bytes of a point."""
    row_step: int
    """Bytes of a row."""
    data: memoryview
    """All rows."""
    is_dense: bool
    """Whether every point is valid."""


class _Cdr:
    """Values in their order.

    Args:
        data: A whole message, bytes.

    Raises:
        SourceError: its encoding is another; also of each method, where the bytes end before.
    """

    def __init__(self, data: memoryview) -> None:
        order = _ORDERS.get(bytes(data[:2]))
        if order is None or len(data) < _START:
            raise SourceError(f"a message of {len(data)} bytes is not in CDR")
        self._data = data
        self._at = _START
        self._uint32 = struct.Struct(f"{order}I")
        self._int32 = struct.Struct(f"{order}i")

    def _bytes(self, size: int) -> memoryview:
        end = self._at + size
        if end > len(self._data):
            raise SourceError(f"a message of {len(self._data)} bytes ends before its data")
        taken, self._at = self._data[self._at : end], end
        return taken

    def uint8(self) -> int:
        """A byte or a bool."""
        return self._bytes(1)[0]

    def uint32(self) -> int:
        """A number without sign."""
        self._at += -self._at % 4  # the encoding's own four bytes do not change the remainder
        value: int = self._uint32.unpack(self._bytes(4))[0]
        return value

    def int32(self) -> int:
        """A number with sign."""
        self._at += -self._at % 4
        value: int = self._int32.unpack(self._bytes(4))[0]
        return value

    def text(self) -> str:
        """A string, which ends in a zero byte that is part of its length."""
        return bytes(self.uint8s()).removesuffix(b"\x00").decode("utf-8", "replace")

    def uint8s(self) -> memoryview:
        """A sequence of bytes, a view of the message."""
        return self._bytes(self.uint32())

    def header(self) -> Header:
        """A std_msgs/msg/Header."""
        return Header(Stamp(self.int32(), self.uint32()), self.text())


def _image(cdr: _Cdr) -> Image:
    return Image(
        header=cdr.header(),
        height=cdr.uint32(),
        width=cdr.uint32(),
        encoding=cdr.text(),
        is_bigendian=cdr.uint8(),
        step=cdr.uint32(),
        data=cdr.uint8s(),
    )


def _compressed_image(cdr: _Cdr) -> CompressedImage:
    return CompressedImage(header=cdr.header(), format=cdr.text(), data=cdr.uint8s())


def _point_field(cdr: _Cdr) -> PointField:
    return PointField(
        name=cdr.text(), offset=cdr.uint32(), datatype=cdr.uint8(), count=cdr.uint32()
    )


def _point_fields(cdr: _Cdr) -> tuple[PointField, ...]:
    count = cdr.uint32()
    if count > _MOST_FIELDS:
        raise SourceError(f"a point cloud of {count} fields cannot be used")
    return tuple(_point_field(cdr) for _ in range(count))


def _point_cloud(cdr: _Cdr) -> PointCloud2:
    return PointCloud2(
        header=cdr.header(),
        height=cdr.uint32(),
        width=cdr.uint32(),
        fields=_point_fields(cdr),
        is_bigendian=bool(cdr.uint8()),
        point_step=cdr.uint32(),
        row_step=cdr.uint32(),
        data=cdr.uint8s(),
        is_dense=bool(cdr.uint8()),
    )


def _reader(read: Callable[[_Cdr], Any]) -> Callable[[memoryview], Any]:
    return lambda data: read(_Cdr(data))


READERS: Final[dict[str, Callable[[memoryview], Any]]] = {
    "sensor_msgs/msg/Image": _reader(_image),
    "sensor_msgs/msg/CompressedImage": _reader(_compressed_image),
    "sensor_msgs/msg/PointCloud2": _reader(_point_cloud),
}
"""ROS 2 type -> reads a message of it in a view of bytes; raises `SourceError` where it is none."""
