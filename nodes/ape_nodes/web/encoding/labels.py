"""Label maps: which region every second pixel of every second row shows, as pages get it."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from ape_nodes.web.encoding.native import native_labels
from ape_stream.masks import paint_order
from ape_stream.wire.codecs import pack_leb128

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_stream.types import Mask

__all__ = ["LABELS", "label_map", "pack_label_map", "paint", "runs"]

LABELS: Final = 255
"""Regions of a frame that have a label: a label is one byte, and 0 is nothing."""


def label_map(masks: Sequence[Mask], size: tuple[int, int], step: int = 2) -> NDArray[np.uint8]:
    """Masks in one map of every `step`-th pixel of every `step`-th row, small ones on top.

    Args:
        masks: N masks; those after the first 255 are left out.
        size: Height and width of the frame, pixels.
        step: Pixels of the frame from one of the map to the next.

    Returns:
        (ceil(H / step), ceil(W / step)) uint8: 0 nothing, k the mask at position k - 1.
    """
    painted = np.zeros((-(-size[0] // step), -(-size[1] // step)), np.uint8)
    native = native_labels()
    (paint if native is None else native.paint)(masks[:LABELS], painted, step)
    return painted


def paint(masks: Sequence[Mask], painted: NDArray[np.uint8], step: int) -> None:
    """Paint at most 255 masks into a map of zeros, the plain form; see `label_map`.

    Raises:
        ValueError: a mask is not inside the map.
    """
    for k in paint_order(masks):
        mask = masks[k]
        # The first row and column of the crop that the map has.
        top, left = -mask.y % step, -mask.x % step
        part = mask.bitmap[top::step, left::step]
        y, x = (mask.y + top) // step, (mask.x + left) // step
        target = painted[y : y + part.shape[0], x : x + part.shape[1]]
        np.copyto(target, np.uint8(k + 1), where=part)


def runs(labels: NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """Runs of equal labels in a map, row by row, the plain form: their labels and lengths.

    A label is a byte, a length unsigned LEB128.
    """
    flat = labels.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)  # (R,)
    lengths = ends.copy()
    lengths[1:] -= ends[:-1]
    return flat[ends - 1].tobytes(), pack_leb128(lengths)


def pack_label_map(labels: NDArray[np.uint8], *, small: bool = True) -> bytes:
    """Run lengths of an (h, w) uint8 label map, row by row, in zlib's form (RFC 1950).

    `w h R` as uint16, uint16, uint32; R labels, one byte each; R run lengths as unsigned LEB128.

    Args:
        labels: The map.
        small: Deflate it, to about half; else it is stored, which takes no time.
    """
    native = native_labels()
    values, lengths = (runs if native is None else native.runs)(labels)
    head = struct.pack("<HHI", labels.shape[1], labels.shape[0], len(values))
    return zlib.compress(head + values + lengths, 1 if small else 0)
