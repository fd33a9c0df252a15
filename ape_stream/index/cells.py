"""Mask logits, packed to the cells that decide a pixel, and back.

A pixel of a mask is the sign of a weighted mean of four cells of the network's map (see
`ape_stream.masks.from_logits`). Where the four have one sign, it decides for every value of them.
So a cell is kept as a number only if one of the blocks of 2 x 2 cells that it is in has both signs;
of all others one bit is kept. The mask of a thing also ends at its box, that of stuff does not:
cells along this edge are kept, too, so that both masks come out of one record.

A record is x, y, width and height of the positive cells (uint16), one bit for each cell of this
rectangle, then the numbers (int8, in sixteenths) in the order of the map. No positive cell: no
bytes at all. Records of several frames are compressed together, as bits and numbers apart.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "FAR",
    "Edges",
    "clip_logits",
    "inside_boxes",
    "join_records",
    "pack_cells",
    "split_records",
    "unpack_cells",
]

FAR: Final = np.float32(20.0)
"""Stands for every cell that is not kept, under its sign; outside boxes as in a live run."""
STEPS: Final = np.float32(16.0)
"""Mask logits are whole multiples of 1 / 16; as `ape_model.inference.detect.MASK_STEPS`."""
_EXTENT: Final = struct.Struct("<4H")

Edges = tuple["NDArray[np.bool_]", "NDArray[np.bool_]"]
"""Which rows (K, h) and columns (K, w) of maps are inside the boxes of K things."""


def inside_boxes(
    boxes: NDArray[np.float32],
    cells: tuple[int, int],
    filled: tuple[float, float],
    margin: float | None,
) -> Edges | None:
    """Which rows and columns of maps are inside grown boxes; None where masks are not cut.

    In float32, step by step as `ape_model.inference.detect.inside_boxes`.

    Args:
        boxes: (K, 4) x1 y1 x2 y2 over the image's width and height.
        cells: Height and width of the maps.
        filled: Rows and columns of the maps that the image fills.
        margin: `Manifest.mask_margin`.
    """
    if margin is None:
        return None
    scale = np.array([filled[1], filled[0]], np.float32)
    grown = np.float32(margin) * (boxes[:, 2:] - boxes[:, :2])  # (K, 2)
    one, half = np.float32(1), np.float32(0.5)
    low, high = (boxes[:, :2] - grown) * scale - one, (boxes[:, 2:] + grown) * scale + one
    x, y = (np.arange(side, dtype=np.float32) + half for side in (cells[1], cells[0]))
    across = (x >= low[:, :1]) & (x <= high[:, :1])  # (K, w)
    down = (y >= low[:, 1:]) & (y <= high[:, 1:])  # (K, h)
    return down, across


def clip_logits(logits: NDArray[np.float32], edges: Edges | None) -> NDArray[np.float32]:
    """End masks (K, h, w) at their boxes."""
    if edges is None:
        return logits
    down, across = edges
    return np.where(down[:, :, None] & across[:, None], logits, -FAR)


def pack_cells(logits: NDArray[np.float32], edges: Edges | None) -> list[bytes]:
    """Pack the masks of K queries.

    Args:
        logits: (K, h, w) float32, whole multiples of 1/16 from -127/16 to 127/16.
        edges: Of `inside_boxes`, for all of them.
    """
    positive = logits > 0
    kept = _deciding(positive, edges)
    numbers = (logits[kept] * STEPS).astype(np.int8).tobytes()
    ends = np.cumsum([np.count_nonzero(one) for one in kept]).tolist()
    records, start = [], 0
    for own, (left, top, width, height), end in zip(
        positive, _extents(positive), ends, strict=True
    ):
        if not width:
            records.append(b"")
            continue
        # One by one: this takes half as long as the bits of all maps at once.
        bits = np.packbits(own[top : top + height, left : left + width]).tobytes()
        records.append(_EXTENT.pack(left, top, width, height) + bits + numbers[start:end])
        start = end
    return records


def _extents(positive: NDArray[np.bool_]) -> list[list[int]]:
    """x, y, width and height of the positive cells of (K, h, w) maps; width 0: there are none."""
    sides = []
    for line in (np.any(positive, axis=1), np.any(positive, axis=2)):  # (K, w), (K, h)
        first = line.argmax(axis=1)
        size = line.shape[1] - line[:, ::-1].argmax(axis=1) - first
        sides.append((first, np.where(line.any(axis=1), size, 0)))
    (left, width), (top, height) = sides
    extents: list[list[int]] = np.stack([left, top, width, height], axis=1).tolist()
    return extents


def unpack_cells(
    record: bytes | memoryview, cells: tuple[int, int], edges: Edges | None
) -> NDArray[np.float32]:
    """The mask logits (h, w) of one record; those that decide no pixel are -20 or 20.

    Args:
        record: Of `pack_cells`.
        cells: Height and width of the map.
        edges: Of `inside_boxes`, for this query alone.

    Raises:
        ValueError: it is damaged.
    """
    data = memoryview(record)
    positive = np.zeros((1, *cells), np.bool_)
    if len(data) == 0:
        return np.full(cells, -FAR)
    left, top, width, height = _EXTENT.unpack_from(data)
    bits = np.frombuffer(data, np.uint8, -(-width * height // 8), _EXTENT.size)
    inside = np.unpackbits(bits, count=width * height).reshape(height, width)
    positive[0, top : top + height, left : left + width] = inside
    kept = _deciding(positive, edges)[0]
    logits = np.where(positive[0], FAR, -FAR)
    logits[kept] = np.frombuffer(data, np.int8, offset=_EXTENT.size + len(bits)) / STEPS
    return logits


def join_records(records: Sequence[bytes]) -> bytes:
    """Many records in one piece that compresses well; see `split_records`."""
    ends = [_bits_end(record) for record in records]
    sizes = np.array([(end, len(r) - end) for end, r in zip(ends, records, strict=True)], "<u4")
    bits = [record[:end] for end, record in zip(ends, records, strict=True)]
    numbers = [record[end:] for end, record in zip(ends, records, strict=True)]
    return b"".join([np.uint32(len(records)).tobytes(), sizes.tobytes(), *bits, *numbers])


def split_records(data: bytes) -> list[bytes]:
    """Undo `join_records`."""
    count = int(np.frombuffer(data, "<u4", 1)[0])
    sizes = np.frombuffer(data, "<u4", 2 * count, 4).reshape(count, 2).T  # (2, N)
    ends = 4 + 8 * count + np.cumsum(sizes.ravel(), dtype=np.int64)
    pieces = [data[end - size : end] for end, size in zip(ends, sizes.ravel(), strict=True)]
    return [bits + numbers for bits, numbers in zip(pieces[:count], pieces[count:], strict=True)]


def _bits_end(record: bytes) -> int:
    """Where the numbers of a record begin."""
    if not record:
        return 0
    _, _, width, height = _EXTENT.unpack_from(record)
    return int(_EXTENT.size + -(-width * height // 8))


def _deciding(positive: NDArray[np.bool_], edges: Edges | None) -> NDArray[np.bool_]:
    """Which cells of (K, h, w) maps are in a block of both signs, whole or cut at the box."""
    kept = _near_change(positive)
    if edges is not None:
        down, across = edges
        inside = down[:, :, None] & across[:, None]
        # Of most maps the box cuts nothing.
        cut = np.flatnonzero((positive & ~inside).any(axis=(1, 2)))
        kept[cut] |= _near_change(positive[cut] & inside[cut]) & inside[cut]
    return kept


def _near_change(positive: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which cells of (K, h, w) maps are in a block of 2 x 2 cells with both signs."""
    count, height, width = positive.shape
    # Rows and columns at the border are there twice, as pixels there read them: a map of one row
    # or column needs no rule of its own. All maps as one line: neighbours are 1 or `below` away.
    padded = np.empty((count, height + 1, width + 1), np.bool_)
    padded[:, :height, :width] = positive
    padded[:, height, :width] = positive[:, -1]
    padded[:, :, width] = padded[:, :, width - 1]
    line, below = padded.ravel(), width + 1
    mixed = np.zeros_like(line)  # by the upper left cell of the block
    across = line[:-1] ^ line[1:]
    mixed[:-below] = line[:-below] ^ line[below:]
    mixed[:-1] |= across
    mixed[: -below - 1] |= across[below:]
    maps = mixed.reshape(padded.shape)
    maps[:, height], maps[:, :, width] = False, False
    near = mixed.copy()
    near[1:] |= mixed[:-1]
    near[below:] |= near[:-below].copy()
    return near.reshape(padded.shape)[:, :height, :width]
