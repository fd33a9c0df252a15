"""Masks: cut, paste, upsample, compress, outline, compare. Always on the crop, never on the frame.

A 1080p mask is 2 MB dense and its crop a few per cent of that, so nothing here touches a pixel
outside the crop unless the caller asks for a dense array (`paste`, `label_map`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco

from ape_stream.values.instances import Mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "Polygon",
    "area",
    "box",
    "boxes",
    "containment_matrix",
    "cut",
    "decode_rle",
    "encode_rle",
    "from_bits",
    "from_logits",
    "iou_matrix",
    "label_map",
    "paint_order",
    "paste",
    "polygons",
]

_BAND = 2**14
"""Pixels upsampled at a time: few enough that they stay in a core's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """One connected part of a mask as outlines through pixel centres."""

    outer: NDArray[np.int32]
    """(P, 2) int32, x y in pixels of the frame; a single pixel has P = 1."""
    holes: tuple[NDArray[np.int32], ...]
    """Outlines of the holes, each (Q, 2) int32 along the mask's pixels around the hole."""


def cut(dense: NDArray[np.bool_]) -> Mask:
    """Cut a (H, W) bool mask to the box of its true pixels; all false gives the empty mask."""
    x, y, w, h = cv2.boundingRect(np.ascontiguousarray(dense).view(np.uint8))
    return Mask(np.array(dense[y : y + h, x : x + w]), x, y) if w else _empty()


def _empty() -> Mask:
    return Mask(np.zeros((0, 0), np.bool_))


def paste(mask: Mask, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask as a dense (H, W) bool array of `size` = (H, W).

    Raises:
        ValueError: the mask does not fit into the frame.
    """
    dense = np.zeros(size, np.bool_)
    dense[_window(mask, size)] = mask.bitmap
    return dense


def _window(mask: Mask, size: tuple[int, int]) -> tuple[slice, slice]:
    h, w = mask.bitmap.shape
    if mask.y + h > size[0] or mask.x + w > size[1]:
        raise ValueError(
            f"a {w}x{h} mask at ({mask.x}, {mask.y}) is outside a {size[1]}x{size[0]} frame"
        )
    return slice(mask.y, mask.y + h), slice(mask.x, mask.x + w)


def area(mask: Mask) -> int:
    """Number of true pixels."""
    return int(np.count_nonzero(mask.bitmap))


def box(mask: Mask) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 of the crop in pixels, x2 and y2 exclusive; zeros for the empty mask."""
    h, w = mask.bitmap.shape
    return mask.x, mask.y, mask.x + w, mask.y + h


def boxes(masks: Sequence[Mask]) -> NDArray[np.float32]:
    """The boxes of N masks, (N, 4) float32, x1 y1 x2 y2 in pixels."""
    return np.array([box(mask) for mask in masks], np.float32).reshape(-1, 4)


# ------------------------------------------------------------------------------ from the network


def from_logits(
    logits: NDArray[np.float32],
    size: tuple[int, int],
    filled: tuple[float, float] | None = None,
    threshold: float = 0.0,
) -> Mask:
    """Upsample a low-resolution logit map to the frame, threshold it, and cut it.

    The map covers the network's canvas, on which the resized frame fills the top left `filled`
    part and padding the rest. Frame pixel i of n reads the map at (i + 0.5) * filled / n - 0.5,
    clamped to the map, by ONE bilinear interpolation. That is the convention align_corners=False:
    equal to ``F.interpolate(logits, scale_factor=n / filled, mode="bilinear",
    recompute_scale_factor=False)`` cut to the frame, and with a frame that fills its canvas to
    ``F.interpolate(logits, size)``. (Two steps, map to canvas and canvas to frame, would blur
    twice.) Columns are interpolated before rows, every product and sum is rounded to float32: so
    does `mask_pack` on a GPU, whose masks are the same to the pixel. Only the extent of the mask
    is computed: a bilinear value is at most the largest of its four neighbours, so no pixel
    further than one map cell from a cell above the threshold can be above it.

    Args:
        logits: (h, w) float32, finite.
        size: height and width of the frame, pixels, at least 1.
        filled: rows and columns of the map that the frame fills, each in (0, h] and (0, w], may
            be fractional (a frame resized to 683 rows at stride 4 fills 170.75); None = all.
        threshold: true where the logit is greater; 0 means a probability above one half.

    Raises:
        ValueError: `filled` is not inside the map.
    """
    height, width = logits.shape
    rows, cols = filled or (height, width)
    if not (0 < rows <= height and 0 < cols <= width):
        raise ValueError(f"filled {(rows, cols)} is not inside the map {(height, width)}")
    x, y, w, h = cv2.boundingRect((logits > threshold).view(np.uint8))
    if w == 0:
        return _empty()
    down, across = _axis(size[0], rows, height), _axis(size[1], cols, width)
    top, bottom = down.reached(y, y + h)
    left, right = across.reached(x, x + w)
    if top == bottom or left == right:
        return _empty()
    inside = _above(logits, down.part(top, bottom), across.part(left, right), threshold)
    return _moved(cut(inside), left, top)


def from_bits(words: NDArray[np.int32], width: int) -> Mask:
    """Cut a mask out of packed bits.

    Args:
        words: (H, ceil(W / 32)) int32, little-endian: bit k of word j is pixel 32 j + k of the
            line; no bit beyond W is set.
        width: W of the frame, pixels.

    Raises:
        ValueError: there are not as many words as the width needs.
    """
    if words.shape[1] != -(-width // 32):
        raise ValueError(f"{words.shape[1]} words of 32 pixels do not make a width of {width}")
    rows = np.flatnonzero(words.any(axis=1))
    columns = np.flatnonzero(words.any(axis=0))
    if len(rows) == 0:
        return _empty()
    top, left = int(rows[0]), int(columns[0])
    some = np.ascontiguousarray(words[top : rows[-1] + 1, left : columns[-1] + 1])
    bits = np.unpackbits(some.view(np.uint8), axis=1, bitorder="little")
    return _moved(cut(bits.view(np.bool_)), 32 * left, top)


def _moved(mask: Mask, x: int, y: int) -> Mask:
    return Mask(mask.bitmap, mask.x + x, mask.y + y) if mask.bitmap.size else mask


class _Axis(NamedTuple):
    """How the n pixels of one axis of the frame read the map."""

    lower: NDArray[np.intp]
    """(n,) the map cell before."""
    upper: NDArray[np.intp]
    """(n,) the map cell after; the same one at the border."""
    share: NDArray[np.float32]
    """(n,) weight of the cell after."""

    def reached(self, first: int, last: int) -> tuple[int, int]:
        """The pixels [from, to) that read one of the map cells [first, last)."""
        return int(np.searchsorted(self.upper, first)), int(np.searchsorted(self.lower, last))

    def part(self, first: int, last: int) -> _Axis:
        """The pixels [first, last)."""
        return _Axis(self.lower[first:last], self.upper[first:last], self.share[first:last])


@lru_cache(maxsize=16)  # a stream keeps its geometry
def _axis(pixels: int, filled: float, cells: int) -> _Axis:
    scale, half = np.float32(filled / pixels), np.float32(0.5)
    at = np.maximum((np.arange(pixels, dtype=np.float32) + half) * scale - half, 0)
    lower = np.minimum(at.astype(np.intp), cells - 1)
    return _Axis(lower, np.minimum(lower + 1, cells - 1), at - lower.astype(np.float32))


def _above(
    logits: NDArray[np.float32], down: _Axis, across: _Axis, threshold: float
) -> NDArray[np.bool_]:
    """Where the map, read at some rows and columns of the frame, is above the threshold.

    Columns come first, on the few map rows; then rows, some at a time.
    """
    first, last = int(down.lower[0]), int(down.upper[-1]) + 1
    some = logits[first:last]
    wide = _between(some.take(across.lower, 1), some.take(across.upper, 1), across.share)
    out = np.empty((len(down.lower), len(across.lower)), np.bool_)
    step = max(1, _BAND // out.shape[1])
    for start in range(0, len(out), step):
        rows = down.part(start, start + step)
        before, after = wide.take(rows.lower - first, 0), wide.take(rows.upper - first, 0)
        line = _between(before, after, rows.share[:, None])
        np.greater(line, threshold, out=out[start : start + step])
    return out


def _between(
    before: NDArray[np.float32], after: NDArray[np.float32], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Both weighed and added, in the memory of the first."""
    before *= 1 - share
    after *= share
    before += after
    return before


# ---------------------------------------------------------------------------------- COCO's RLE


def encode_rle(mask: Mask, size: tuple[int, int]) -> dict[str, Any]:
    """Compress a mask as COCO does: ``{"size": [H, W], "counts": bytes}``.

    Byte-equal to ``pycocotools.mask.encode`` of the dense mask. COCO counts run lengths down the
    columns, zeros first; inside the crop they come from the differences along each column.

    Raises:
        ValueError: the mask does not fit into the frame.
    """
    _window(mask, size)
    counts = _run_lengths(mask, size)
    rle: dict[str, Any] = coco.frPyObjects({"size": list(size), "counts": counts}, *size)
    return rle


def _run_lengths(mask: Mask, size: tuple[int, int]) -> NDArray[np.int64]:
    """Alternating lengths of zeros and ones down the columns of the frame, zeros first."""
    h, w = mask.bitmap.shape
    fenced = np.zeros((w, h + 2), np.uint8)  # a zero above and below every column
    fenced[:, 1:-1] = mask.bitmap.T
    flat = fenced.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    column, row = np.divmod(edges, h + 2)
    ends = (mask.x + column) * size[0] + mask.y + row
    # A run down to the last row goes on at the top of the next column: drop that edge pair.
    twice = np.flatnonzero(ends[1:] == ends[:-1])
    ends = np.delete(ends, np.concatenate([twice, twice + 1]))
    total = size[0] * size[1]
    stops = ends if len(ends) and ends[-1] == total else np.append(ends, total)
    return np.diff(stops, prepend=0)


def decode_rle(rle: dict[str, Any]) -> Mask:
    """Read ``{"size": [H, W], "counts": ...}`` with counts as bytes, text or a list of lengths.

    Raises:
        ValueError: the counts are damaged or do not fill the frame.
    """
    height, width = (int(side) for side in rle["size"])
    counts = rle["counts"]
    lengths = (
        _parse_counts(counts.encode() if isinstance(counts, str) else counts)
        if isinstance(counts, str | bytes)
        else np.asarray(counts, np.int64)
    )
    if height < 1 or width < 1 or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f"run lengths do not fill a {width}x{height} mask")
    stops = np.cumsum(lengths)
    starts, ends = stops[0:-1:2], stops[1::2]
    some = ends > starts
    return _from_runs(starts[some], ends[some], height)


def _parse_counts(text: bytes) -> NDArray[np.int64]:
    """Undo COCO's text form: base 32 digits + 48, low first, differences to two runs before."""
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if len(digits) == 0 or (digits < 0).any() or (digits > 63).any() or digits[-1] & 0x20:
        raise ValueError("the counts of a run-length code are damaged")
    last = np.flatnonzero((digits & 0x20) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    if place.max() > 6:
        raise ValueError("the counts of a run-length code are damaged")
    values = np.add.reduceat((digits & 0x1F) << (5 * place), first)
    values -= np.where(digits[last] & 0x10, 1 << (5 * (place[last] + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])  # entries 0, 1 and 2 are lengths, the rest differences
    values[2::2] = np.cumsum(values[2::2])
    return values


def _from_runs(starts: NDArray[np.int64], ends: NDArray[np.int64], height: int) -> Mask:
    """The mask whose true pixels are [start, end) down the columns of a frame of this height."""
    if len(starts) == 0:
        return _empty()
    x, right = int(starts[0]) // height, (int(ends[-1]) - 1) // height + 1
    wraps = (starts // height != (ends - 1) // height).any()
    y = 0 if wraps else int((starts % height).min())
    h = height if wraps else int(((ends - 1) % height).max()) + 1 - y
    begin = (starts // height - x) * h + starts % height - y
    steps = np.zeros((right - x) * h + 1, np.int8)
    steps[begin] += 1
    steps[begin + ends - starts] -= 1
    bitmap = np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_).reshape(right - x, h).T
    return Mask(np.ascontiguousarray(bitmap), x, y)


# ---------------------------------------------------------------------------- outlines, overlap


def polygons(mask: Mask) -> list[Polygon]:
    """The connected parts (8-neighbours) of a mask with their holes.

    ``cv2.fillPoly(canvas, [p.outer, *p.holes], 1)`` for every part gives the mask back exactly:
    cv2's outlines run through the mask's own border pixels and fillPoly draws its outlines too.
    """
    if mask.bitmap.size == 0:
        return []
    outlines, tree = cv2.findContours(
        mask.bitmap.view(np.uint8),
        cv2.RETR_CCOMP,
        cv2.CHAIN_APPROX_SIMPLE,
        offset=(mask.x, mask.y),
    )
    points = [np.asarray(outline, np.int32).reshape(-1, 2) for outline in outlines]
    parents = tree[0, :, 3]
    return [
        Polygon(points[k], tuple(points[j] for j in np.flatnonzero(parents == k)))
        for k in np.flatnonzero(parents < 0)
    ]


def iou_matrix(a: Sequence[Mask], b: Sequence[Mask]) -> NDArray[np.float32]:
    """Intersection over union of N by M masks, (N, M) float32 in 0..1; 0 where both are empty."""
    return _overlaps(a, b, crowd=False)


def containment_matrix(a: Sequence[Mask], b: Sequence[Mask]) -> NDArray[np.float32]:
    """Part of the smaller of two masks that lies in the other, (N, M) float32 in 0..1.

    Unlike intersection over union it is 1 for a mask that is a part of another, however small.
    """
    return np.maximum(_overlaps(a, b, crowd=True), _overlaps(b, a, crowd=True).T)


def _overlaps(a: Sequence[Mask], b: Sequence[Mask], *, crowd: bool) -> NDArray[np.float32]:
    """(N, M) intersections over the union, or over the area of `a` where `b` is a crowd (COCO)."""
    if not a or not b:
        return np.zeros((len(a), len(b)), np.float32)
    corners = boxes([*a, *b])
    size = (max(int(corners[:, 3].max()), 1), max(int(corners[:, 2].max()), 1))
    rles = [encode_rle(mask, size) for mask in (*a, *b)]
    found = coco.iou(rles[: len(a)], rles[len(a) :], [int(crowd)] * len(b))
    return np.asarray(found, np.float32).reshape(len(a), len(b))


def paint_order(masks: Sequence[Mask]) -> NDArray[np.intp]:
    """Positions from the largest to the smallest mask: small ones end up on top.

    Of two equal ones the later is painted first, as ``supervision`` does.
    """
    return np.flip(np.argsort([area(mask) for mask in masks], kind="stable")).astype(np.intp)


def label_map(
    masks: Sequence[Mask], size: tuple[int, int], values: Sequence[int] | None = None
) -> NDArray[np.uint16]:
    """Paint masks into one (H, W) uint16 map, small ones over large ones; 0 = no mask.

    Args:
        masks: N masks inside the frame.
        size: height and width of the frame, pixels.
        values: what each mask paints, 1..65535; None paints position + 1.

    Raises:
        ValueError: a mask is outside the frame, or a value does not fit.
    """
    painted = np.zeros(size, np.uint16)
    numbers = range(1, len(masks) + 1) if values is None else values
    if any(not 1 <= number <= 0xFFFF for number in numbers):
        raise ValueError("a label map holds the values 1..65535 only")
    for k in paint_order(masks):
        target = painted[_window(masks[k], size)]
        np.copyto(target, numbers[int(k)], where=masks[k].bitmap)
    return painted
