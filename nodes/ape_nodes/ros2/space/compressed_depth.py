"""Depth images as compressed_depth_image_transport sends them: 12 bytes, then a PNG of 16 bits.

The 12 bytes are its ConfigHeader: the kind of compression and the two numbers A and B, by which
metres become 16 bits: value = A / metres + B, and 0 = no depth. Millimetres are stored as they are.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from ape_nodes.ros2.images import MAX_PIXELS
from ape_stream.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["decompressed"]

_CONFIG: Final = struct.Struct("<iff")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_SIZE: Final = struct.Struct(">II")
_SIZE_AT: Final = 16
"""Where a PNG has its width and height."""


def decompressed(message: Any) -> NDArray[Any]:
    """The values of a depth image: (H, W) uint16 millimetres or float32 metres, by its format.

    Args:
        message: A sensor_msgs/CompressedImage of a topic that ends in `/compressedDepth`.

    Raises:
        SourceError: it is no such image, or it is damaged.
    """
    encoding, _, transport = message.format.lower().partition(";")
    encoding = encoding.strip()
    if encoding not in ("16uc1", "32fc1") or "compresseddepth" not in transport:
        raise SourceError(f"{message.format!r} is no depth in 16UC1 or 32FC1 by compressedDepth")
    data = np.frombuffer(message.data, np.uint8)
    values = _stored(data[_CONFIG.size :], message.format)
    if encoding == "16uc1":
        return values
    _, a, b = _CONFIG.unpack(data[: _CONFIG.size].tobytes())
    with np.errstate(divide="ignore", invalid="ignore"):  # values next to B are no depth
        metres = np.float32(a) / (values.astype(np.float32) - np.float32(b))
    metres[values == 0] = 0
    return metres


def _stored(data: NDArray[np.uint8], form: str) -> NDArray[np.uint16]:
    head = data[: _SIZE_AT + _SIZE.size].tobytes()
    if len(head) < _SIZE_AT + _SIZE.size or not head.startswith(_PNG):
        raise SourceError(f"a depth image in {form!r} holds no PNG: set its format to png, not rvl")
    width, height = _SIZE.unpack_from(head, _SIZE_AT)
    if not 0 < width * height <= MAX_PIXELS:  # before anything is allocated
        raise SourceError(f"a depth image of {width}x{height} pixels cannot be used")
    values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 2:
        raise SourceError(f"a depth image in {form!r} is damaged, or has no 16 bits")
    return np.asarray(values, np.uint16)
