"""Mask logits, packed to the cells that decide a pixel, and back.

A pixel of a mask is the sign of a weighted mean of four cells of the network's map (see
`ape_stream.masks.from_logits`). Where the four have one sign, it decides for every value of them.
So a cell is kept as a number only if one of the blocks of 2 x 2 cells that it is in has both signs;
of all others one bit is kept. The mask of a thing also ends at its box, that of stuff does not:
cells along this edge are kept, too, so that both masks come out of one record.

Of K masks of h x w cells one bit of each cell is kept, and the numbers of those that decide, as
int8 in sixteenths, in the order of the map. The masks of several frames are compressed together,
bits and numbers apart: bits that do not change are nearly nothing then.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = [
    "FAR",
    "STEPS",
    "STUFF",
    "THING",
    "Edges",
    "PackedMaps",
    "clip_logits",
    "inside_boxes",
    "join_maps",
    "pack_maps",
    "split_maps",
    "surely_drawn",
]

FAR: Final = np.float32(20.0)
"""Stands for every cell that is not kept, under its sign; outside boxes as in a live run."""
STEPS: Final = np.float32(16.0)
"""Mask logits are whole multiples of 1 / 16; as `ape_model.inference.detect.MASK_STEPS`."""

THING, STUFF = 1, 2
"""Bits: of masks that end at their boxes, and of those that do not."""

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


@dataclass(frozen=True, slots=True, eq=False)
class PackedMaps:
    """The masks of K queries of one frame."""

    bits: NDArray[np.uint8]
    """(K, ceil(h w / 8)) whether a cell is positive, as `np.packbits`."""
    counts: NDArray[np.uint32]
    """(K,) how many numbers each has."""
    numbers: NDArray[np.int8]
    """(n,) mask logits in sixteenths of the cells that decide a pixel, one mask after the other."""

    def logits(
        self, rows: NDArray[np.intp], cells: tuple[int, int], edges: Edges | None
    ) -> NDArray[np.float32]:
        """The mask logits (k, h, w) of some; those that decide no pixel are -20 or 20.

        Args:
            rows: (k,) which ones.
            cells: Height and width of the maps.
            edges: Of `inside_boxes`, for these.

        Raises:
            ValueError: they are damaged.
        """
        bits = np.unpackbits(self.bits[rows], axis=1, count=cells[0] * cells[1])
        positive = bits.view(np.bool_).reshape(-1, *cells)  # (k, h, w)
        ends = np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])
        spans = [self.numbers[ends[k] : ends[k + 1]] for k in rows.tolist()]
        logits = np.where(positive, FAR, -FAR)
        logits[_deciding(positive, edges)] = np.concatenate([self.numbers[:0], *spans]) / STEPS
        return logits


def pack_maps(logits: NDArray[np.int8], edges: Edges | None) -> PackedMaps:
    """Pack the masks of K queries.

    Args:
        logits: (K, h, w) in sixteenths, from -127 to 127.
        edges: Of `inside_boxes`, for all of them.
    """
    positive = logits > 0
    kept = _deciding(positive, edges)
    return PackedMaps(
        bits=np.packbits(_lines(positive), axis=1),
        counts=np.count_nonzero(_lines(kept), axis=1).astype(np.uint32),
        numbers=logits[kept],
    )


def surely_drawn(
    logits: NDArray[np.int8], filled: tuple[float, float], edges: Edges | None
) -> NDArray[np.uint8]:
    """Which masks have a pixel for sure, without a look at pixels: (K,), `THING` and `STUFF` bits.

    Four positive cells in a square make every pixel between them positive, and there is one: see
    `Part.surely_drawn`.

    Args:
        logits: (K, h, w) in sixteenths.
        filled: Rows and columns of the maps that the image fills.
        edges: Of `inside_boxes`, for all of them.
    """
    positive = logits[:, : int(filled[0]), : int(filled[1])] > 0
    drawn = np.uint8(STUFF) * _has_square(positive)
    if edges is not None:
        down, across = (side[:, :end] for side, end in zip(edges, positive.shape[1:], strict=True))
        positive &= down[:, :, None] & across[:, None]
    return drawn + np.uint8(THING) * _has_square(positive)


def _has_square(positive: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(K,) whether a block of 2 x 2 cells of (K, h, w) maps is positive."""
    pairs = positive[:, 1:] & positive[:, :-1]
    found: NDArray[np.bool_] = np.any(pairs[:, :, 1:] & pairs[:, :, :-1], axis=(1, 2))
    return found


def _lines(maps: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(K, h, w) as (K, h w)."""
    return maps.reshape(len(maps), maps.shape[1] * maps.shape[2])


def join_maps(frames: Iterable[PackedMaps]) -> bytes:
    """The masks of several frames in one piece that compresses well; see `split_maps`."""
    columns = zip(*((one.counts, one.bits, one.numbers) for one in frames), strict=True)
    return b"".join(array.tobytes() for column in columns for array in column)


def split_maps(data: bytes, frames: Sequence[tuple[int, tuple[int, int]]]) -> list[PackedMaps]:
    """Undo `join_maps`.

    Args:
        data: Of `join_maps`.
        frames: Of each frame how many masks it has, and the height and width of their maps.

    Raises:
        ValueError: it is damaged.
    """
    raw = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
    places = np.cumsum([0, *(count for count, _ in frames)]).tolist()
    at = 4 * places[-1]
    counts = raw[:at].view(np.uint32)
    bits = []
    for count, (height, width) in frames:
        size = count * -(-height * width // 8)
        bits.append(raw[at : at + size].reshape(count, -(-height * width // 8)))
        at += size
    numbers = raw[at:].view(np.int8)
    ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).tolist()
    return [
        PackedMaps(own, counts[first:last], numbers[ends[first] : ends[last]])
        for own, (first, last) in zip(bits, pairwise(places), strict=True)
    ]


def _deciding(positive: NDArray[np.bool_], edges: Edges | None) -> NDArray[np.bool_]:
    """Which cells of (K, h, w) maps are in a block of both signs, whole or cut at the box."""
    kept = _near_change(positive)
    if edges is not None:
        down, across = edges
        inside = down[:, :, None] & across[:, None]
        # Of most maps the box cuts nothing.
        cut = np.flatnonzero((positive > inside).any(axis=(1, 2)))
        if len(cut):
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
