"""Run lengths: the one coder for COCO's masks, supervision's and those of the wire format.

A mask is a row of alternating runs of equal pixels, false first (a mask that begins with a true
pixel begins with a run of 0). COCO and supervision count down the columns, the wire format along
the rows. COCO also writes the lengths as text, with few characters for small differences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pycocotools import mask as coco

from ape_stream.masks.ops import empty, window
from ape_stream.values.instances import Mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "decode_rle",
    "encode_rle",
    "frame_run_lengths",
    "from_run_lengths",
    "rle_area",
    "rle_run_lengths",
    "run_lengths",
]


def run_lengths(bitmap: NDArray[np.bool_], order: Literal["C", "F"] = "C") -> NDArray[np.int64]:
    """Lengths of the alternating runs of a bitmap, false first.

    Args:
        bitmap: (h, w) bool, not empty.
        order: "C" counts along the rows, "F" down the columns.

    Returns:
        (R,) int64 with the sum h * w; all but the first are at least 1.
    """
    flat = bitmap.ravel(order=order)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], edges, [flat.size])))
    return np.concatenate(([0], runs)) if flat[0] else runs


def from_run_lengths(
    runs: NDArray[np.int64], shape: tuple[int, int], order: Literal["C", "F"] = "C"
) -> NDArray[np.bool_]:
    """The (h, w) bitmap of these runs; the inverse of `run_lengths`. Runs of 0 are allowed.

    Raises:
        ValueError: a run is negative, or they do not sum to h * w.
    """
    _check_runs(runs, shape)
    values = np.zeros(len(runs), np.bool_)
    values[1::2] = True
    return np.repeat(values, runs).reshape(shape, order=order)


def _check_runs(runs: NDArray[np.int64], shape: tuple[int, int]) -> None:
    pixels = shape[0] * shape[1]
    # Each run is checked before the sum: hostile lengths could overflow to the right one.
    if ((runs < 0) | (runs > pixels)).any() or int(runs.sum()) != pixels:
        raise ValueError(f"run lengths do not fill a {shape[1]}x{shape[0]} mask")


def encode_rle(mask: Mask, size: tuple[int, int]) -> dict[str, Any]:
    """Compress a mask as COCO does: `{"size": [H, W], "counts": bytes}`.

    Byte-equal to `pycocotools.mask.encode` of the dense mask. COCO counts run lengths down the
    columns, zeros first; inside the crop they come from the differences along each column.

    Raises:
        ValueError: the mask does not fit into the frame.
    """
    window(mask, size)
    counts = frame_run_lengths(mask, size)
    rle: dict[str, Any] = coco.frPyObjects({"size": list(size), "counts": counts}, *size)
    return rle


def frame_run_lengths(mask: Mask, size: tuple[int, int]) -> NDArray[np.int64]:
    """Lengths of the alternating runs of the whole frame down its columns, false first: (R,)."""
    # A zero is put above and below every column of the crop. Then every run of ones begins and
    # ends inside its column, and the edges of all columns are found at once: row r of a column is
    # an edge where its pixel differs from the one above.
    h, w = mask.bitmap.shape
    fenced = np.zeros((w, h + 2), np.uint8)
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


def decode_rle(rle: Mapping[str, Any]) -> Mask:
    """Read `{"size": [H, W], "counts": ...}` with counts as bytes, text or a list of lengths.

    Not by `pycocotools.mask.decode`: where counts are too short for the frame, it returns memory
    that was never written.

    Raises:
        ValueError: the counts are damaged or do not fill the frame.
    """
    runs, height = rle_run_lengths(rle), int(rle["size"][0])
    # Only the columns that the mask touches are made: of a frame they are few.
    ends = np.cumsum(runs)
    true = 2 * np.flatnonzero(runs[1::2]) + 1
    if len(true) == 0:
        return empty()
    first, last = ends[true - 1], ends[true] - 1  # of every true run, pixels down the columns
    left, right = int(first[0]) // height, int(last[-1]) // height + 1
    clipped = np.clip(ends, left * height, right * height)
    inside = np.diff(clipped, prepend=left * height).astype(np.int64)
    columns = from_run_lengths(inside, (right - left, height))
    # A run that goes on in the next column has the last row of one and the first of the other.
    within = (first // height == last // height).all()
    top, bottom = (
        (int((first % height).min()), int((last % height).max()) + 1) if within else (0, height)
    )
    return Mask(np.ascontiguousarray(columns[:, top:bottom].T), left, top)


def rle_area(rle: Mapping[str, Any]) -> int:
    """Number of true pixels of what `decode_rle` reads, without decoding it.

    Raises:
        ValueError: as `decode_rle`.
    """
    return int(rle_run_lengths(rle)[1::2].sum())


def rle_run_lengths(rle: Mapping[str, Any]) -> NDArray[np.int64]:
    """The alternating run lengths, false first, of what `decode_rle` reads: (R,).

    Raises:
        ValueError: as `decode_rle`.
    """
    height, width = (int(side) for side in rle["size"])
    counts = rle["counts"]
    if isinstance(counts, str):
        counts = counts.encode()
    runs = _parse_counts(counts) if isinstance(counts, bytes) else np.asarray(counts, np.int64)
    if height < 1 or width < 1:
        raise ValueError(f"run lengths do not fill a {width}x{height} mask")
    _check_runs(runs, (height, width))
    return runs


def _parse_counts(text: bytes) -> NDArray[np.int64]:
    """Undo COCO's text form: base 32 digits + 48, low first, differences to two runs before."""
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if len(digits) == 0 or (digits < 0).any() or (digits > 63).any() or digits[-1] & 0x20:
        raise ValueError("the counts of a run-length code are damaged")
    last = np.flatnonzero((digits & 0x20) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    # A digit's position inside its number; seven digits hold more than any length needs.
    position = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    if position.max() > 6:
        raise ValueError("the counts of a run-length code are damaged")
    values = np.add.reduceat((digits & 0x1F) << (5 * position), first)
    # Bit 4 of the last digit is the sign: extend it.
    values -= np.where(digits[last] & 0x10, 1 << (5 * (position[last] + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])  # entries 0, 1 and 2 are lengths, the rest differences
    values[2::2] = np.cumsum(values[2::2])
    return values
