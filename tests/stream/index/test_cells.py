"""Masks as the cells that decide a pixel: packed fast, as a plain form of the same packs them."""

import numpy as np
import pytest

from ape_stream import masks
from ape_stream.index.cells import (
    clip_logits,
    inside_boxes,
    join_records,
    pack_cells,
    split_records,
    unpack_cells,
)


def made(seed, count=9):
    """Maps of all kinds: blobs, noise, one cell, none, all; and their boxes."""
    rng = np.random.default_rng(seed)
    h, w = int(rng.integers(1, 24)), int(rng.integers(1, 24))
    boxes = np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)
    y, x = np.mgrid[:h, :w]
    centre = rng.random((count, 2)) * (h, w)
    far = np.hypot(y - centre[:, :1, None], x - centre[:, 1:, None])
    logits = 4 - far + rng.standard_normal((count, h, w)) * rng.choice([0, 0.5, 4])
    logits[0], logits[1] = -3, 3
    logits[2] = -3
    logits[2, h // 2, w // 2] = 2
    return np.clip(np.round(logits * 16), -127, 127).astype(np.float32) / np.float32(16), boxes


def plain(logits, edges):
    """One record, cell by cell."""
    signs = [logits > 0]
    if edges is not None:
        signs.append(clip_logits(logits[None], edges)[0] > 0)
    if not signs[0].any():
        return b""
    h, w = logits.shape
    kept = np.zeros((h, w), bool)
    for number, sign in enumerate(signs):
        near = np.zeros((h, w), bool)
        for y in range(max(1, h - 1)):
            for x in range(max(1, w - 1)):
                block = slice(y, y + 2), slice(x, x + 2)
                if 0 < sign[block].mean() < 1:
                    near[block] = True
        if number:
            near &= edges[0][0][:, None] & edges[1][0]
        kept |= near
    rows, columns = np.flatnonzero(signs[0].any(1)), np.flatnonzero(signs[0].any(0))
    left, top = columns[0], rows[0]
    width, height = columns[-1] + 1 - left, rows[-1] + 1 - top
    extent = np.array([left, top, width, height], "<u2").tobytes()
    bits = np.packbits(signs[0][top : top + height, left : left + width])
    return extent + bits.tobytes() + (logits[kept] * 16).astype(np.int8).tobytes()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("margin", [None, 0.05])
def test_records_are_those_of_the_plain_form_and_give_the_same_masks(seed, margin):
    logits, boxes = made(seed)
    cells = logits.shape[1:]
    filled = (float(cells[0]), cells[1] - 0.5)
    edges = inside_boxes(boxes, cells, filled, margin)
    records = pack_cells(logits, edges)
    assert split_records(join_records(records)) == records
    for k, record in enumerate(records):
        own = None if edges is None else (edges[0][k : k + 1], edges[1][k : k + 1])
        assert record == plain(logits[k], own)
        again = unpack_cells(record, cells, own)
        for one in (None, own):
            wanted, got = (clip_logits(maps[None], one)[0] for maps in (logits[k], again))
            size = (3 * cells[0], 4 * cells[1])
            first, second = (masks.from_logits(maps, size, filled) for maps in (wanted, got))
            assert (first.x, first.y) == (second.x, second.y)
            assert np.array_equal(first.bitmap, second.bitmap)
