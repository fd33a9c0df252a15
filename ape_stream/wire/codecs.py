"""The byte forms inside a wire message: mask runs, packed bits, compressed maps, images.

Every decoder of a message takes the size that must come out and checks it before it allocates, so
a few hostile bytes can never ask for much memory. docs/wire.md describes the same forms for readers
in other languages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from ape_stream.errors import WireError
from ape_stream.masks import from_run_lengths, run_lengths
from ape_stream.optional import library

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BITS",
    "IMAGE_CODECS",
    "LABEL_CODECS",
    "RUNS",
    "compress_labels",
    "decode_compressed",
    "decode_image",
    "decode_mask",
    "encode_image",
    "encode_mask",
    "expand_labels",
    "jpeg_has_end",
    "jpeg_size",
    "pack_leb128",
]

BITS: Final = 0
"""Mask form: one bit per pixel, row by row, highest bit first, the last byte filled with zeros."""
RUNS: Final = 1
"""Mask form: lengths of alternating runs (false first), row by row, each as unsigned LEB128."""
LABEL_CODECS: Final = ("zstd", "lz4")
IMAGE_CODECS: Final = ("jpeg", "bgr8")
_JPEG_START: Final = b"\xff\xd8"
LZ4_MAX_RATIO: Final = 256
"""LZ4 block format: one length byte stands for at most 255 bytes."""
MAX_RUN_BYTES: Final = 5
"""A LEB128 run below 2**35 takes at most this many bytes; a longer one is refused."""


def pack_leb128(values: NDArray[np.int64]) -> bytes:
    """Unsigned LEB128 of (R,) values: 7 bits a byte, lowest first, bit 7 = more follows."""
    first = values.astype(np.uint8)
    at = np.flatnonzero(values >= 128)  # most values have one byte only
    if at.size == 0:
        return first.tobytes()
    first[at] |= 0x80
    rest = values[at] >> 7
    if rest.max() < 128:  # most others have two: no list of indices has to be sorted
        at += np.arange(1, at.size + 1)  # where the second bytes end up
        packed = np.empty(values.size + at.size, np.uint8)
        is_first = np.ones(packed.size, np.bool_)
        is_first[at] = False
        packed[is_first], packed[at] = first, rest
        return packed.tobytes()
    at += 1
    further, indices = [], []
    while rest.size:
        more = rest >= 128
        further.append(rest & 0x7F | more.astype(np.int64) << 7)
        indices.append(at)
        rest, at = rest[more] >> 7, at[more]
    # Those of one value have the same index: `insert` keeps their order.
    return np.insert(first, np.concatenate(indices), np.concatenate(further)).tobytes()


def _unpack_leb128(data: bytes | memoryview) -> NDArray[np.int64]:
    """The (R,) values of an unsigned LEB128 sequence.

    Raises:
        WireError: it breaks off inside a value, or a value is longer than five bytes.
    """
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)  # (R,) last byte of each value
    if raw.size == 0 or ends.size == 0 or ends[-1] != raw.size - 1:
        raise WireError("a mask's run lengths break off inside a number")
    starts = np.concatenate(([0], ends[:-1] + 1))
    sizes = ends - starts + 1
    if sizes.max() > MAX_RUN_BYTES:
        raise WireError("a mask's run length has more than five bytes")
    # A byte's position inside its value says by how much its 7 bits are shifted.
    position = np.arange(raw.size) - np.repeat(starts, sizes)
    digits = (raw & 0x7F).astype(np.int64) << (7 * position)  # (bytes,)
    return np.add.reduceat(digits, starts)


def encode_mask(bitmap: NDArray[np.bool_]) -> tuple[int, bytes]:
    """Encode an (h, w) mask in whichever form is shorter.

    Returns:
        The form (`RUNS` or `BITS`) and its bytes; an empty mask has none.
    """
    if bitmap.size == 0:
        return BITS, b""
    runs = pack_leb128(run_lengths(bitmap))
    if len(runs) <= (bitmap.size + 7) // 8:
        return RUNS, runs
    return BITS, np.packbits(bitmap).tobytes()


def decode_mask(form: int, data: bytes | memoryview, height: int, width: int) -> NDArray[np.bool_]:
    """Decode the (height, width) mask that `encode_mask` wrote.

    Raises:
        WireError: unknown form, or the bytes do not make exactly height x width pixels.
    """
    pixels = height * width
    if form == BITS:
        if len(data) != (pixels + 7) // 8:
            raise WireError(f"a packed mask of {pixels} pixels has {len(data)} bytes")
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=pixels)
        # unpackbits gives 0 and 1 only, as bools are stored: a view, no copy.
        return bits.view(np.bool_).reshape(height, width)
    if form != RUNS:
        raise WireError(f"mask form {form} is unknown, this version reads 0 (bits) and 1 (runs)")
    try:
        return from_run_lengths(_unpack_leb128(data), (height, width))
    except ValueError as error:
        raise WireError(f"a mask is broken: {error}") from error


def compress_labels(label_map: NDArray[np.uint16], codec: str) -> bytes:
    """Compress an (H, W) uint16 label map, little endian, row by row.

    Args:
        label_map: The map.
        codec: "zstd" (smaller) or "lz4" (faster).
    """
    raw = np.ascontiguousarray(label_map, "<u2").tobytes()
    if codec == "zstd":
        return bytes(library("zstandard", "zmq").ZstdCompressor(level=1).compress(raw))
    return bytes(library("lz4.frame", "zmq").compress(raw, content_checksum=False))


def expand_labels(
    data: bytes | memoryview, codec: str, height: int, width: int
) -> NDArray[np.uint16]:
    """Undo `compress_labels`, never allocating more than the map itself.

    Raises:
        WireError: unknown codec, broken data, or another size comes out.
    """
    expected = 2 * height * width
    if codec == "zstd":
        raw = _expand_zstd(data, expected)
    elif codec == "lz4":
        raw = _expand_lz4(data, expected)
    else:
        raise WireError(f"label codec {codec!r} is unknown, this version reads {LABEL_CODECS}")
    return np.frombuffer(raw, "<u2").astype(np.uint16, copy=False).reshape(height, width)


def _expand_zstd(data: bytes | memoryview, expected: int) -> bytes:
    zstandard: Any = library("zstandard", "zmq")
    try:
        # The frame header's size decides how much is allocated: it must be right beforehand.
        if zstandard.frame_content_size(data) != expected:
            raise WireError("the label map's zstd frame does not have the size of the image")
        raw = bytes(zstandard.ZstdDecompressor().decompress(data, max_output_size=expected))
    except zstandard.ZstdError as error:
        raise WireError(f"the label map is broken: {error}") from error
    if len(raw) != expected:
        raise WireError("the label map does not have the size of the image")
    return raw


def _expand_lz4(data: bytes | memoryview, expected: int) -> bytes:
    frame: Any = library("lz4.frame", "zmq")
    if expected > LZ4_MAX_RATIO * len(data):  # it cannot come out: do not even reserve the room
        raise WireError("the label map is too short for the size of the image")
    reader = frame.LZ4FrameDecompressor()
    try:
        # One byte more than expected, so that too much data is seen and not just cut.
        raw = bytes(reader.decompress(data, max_length=expected + 1))
    except (RuntimeError, ValueError, EOFError) as error:
        raise WireError(f"the label map is broken: {error}") from error
    if len(raw) != expected:
        raise WireError("the label map does not have the size of the image")
    return raw


def encode_image(image: NDArray[np.uint8], codec: str, quality: int = 80) -> bytes:
    """Encode an (H, W, 3) uint8 blue-green-red image.

    Args:
        image: The image.
        codec: "jpeg", or "bgr8" for the bare pixels, row by row.
        quality: JPEG quality, 1..100.

    Raises:
        WireError: the image is too large for JPEG (65535 pixels a side).
    """
    if codec == "bgr8":
        return image.tobytes()
    if max(image.shape) > 65_535:  # JPEG has 16 bits for a side
        raise WireError(f"an image of shape {image.shape} is too large for JPEG: send it as bgr8")
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise WireError(f"an image of shape {image.shape} cannot be written as JPEG")
    return data.tobytes()


def decode_image(
    data: bytes | memoryview, codec: str, height: int, width: int
) -> NDArray[np.uint8]:
    """Decode an image that must have this size; (H, W, 3) uint8, blue-green-red.

    Raises:
        WireError: unknown codec, broken data, or another size.
    """
    if codec == "bgr8":
        if len(data) != 3 * height * width:
            raise WireError(f"an image of {width}x{height} has {len(data)} bytes")
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)
    if codec != "jpeg":
        raise WireError(f"image codec {codec!r} is unknown, this version reads {IMAGE_CODECS}")
    if jpeg_size(data) != (height, width):  # before OpenCV allocates what the header asks for
        raise WireError(f"the JPEG does not have the announced size {width}x{height}")
    # Without EXIF's rotation: it could swap the announced height and width.
    image = decode_compressed(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image.shape != (height, width, 3):
        raise WireError("the JPEG does not have the size in its header")
    return image


def decode_compressed(data: Any, flags: int = cv2.IMREAD_COLOR) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or another image that OpenCV reads; (H, W, 3) uint8, blue-green-red.

    Args:
        data: Any buffer of bytes.
        flags: As for `cv2.imdecode`; they ask for three channels.

    Raises:
        WireError: the bytes are no image, broken or cut short.
    """
    raw = np.frombuffer(data, np.uint8) if len(data) else np.zeros(0, np.uint8)
    if raw[:2].tobytes() == _JPEG_START and not jpeg_has_end(raw.data):
        raise WireError(f"a JPEG of {raw.size} bytes is cut short")
    image = cv2.imdecode(raw, flags) if raw.size else None
    if image is None:
        raise WireError(f"a compressed image of {raw.size} bytes cannot be decoded")
    return image.astype(np.uint8, copy=False)


def jpeg_has_end(data: bytes | memoryview) -> bool:
    """Whether a JPEG has its end marker (ITU-T T.81, B.1.1.3); some senders add bytes after it.

    OpenCV fills up what is missing with grey, and complains on standard error without a name.
    """
    return b"\xff\xd9" in bytes(data[-4096:])  # which cannot occur in coded data


def jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """Height and width from a JPEG's frame header (ITU-T T.81, B.2.2), None where it has none."""
    if bytes(data[:2]) != _JPEG_START:
        return None
    # Segment after segment, each: 0xFF, its marker, two bytes of length (which count themselves).
    at = 2
    while at + 9 <= len(data):
        if data[at + 1] == 0xFF:  # a fill byte before a marker
            at += 1
            continue
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        # 0xDA begins the compressed data: no frame header came before it.
        if data[at] != 0xFF or marker == 0xDA or length < 2:
            return None
        # SOF0..SOF15, without DHT (C4), JPG (C8) and DAC (CC), which are no frame headers.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            return height, int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + length
    return None
