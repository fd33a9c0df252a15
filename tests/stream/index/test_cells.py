"""Masks as the cells that decide a pixel: packed fast, as a plain form of the same packs them."""

import numpy as np
import pytest

from ape_stream import masks
from ape_stream.index.cells import (
    STEPS,
    STUFF,
    THING,
    clip_logits,
    inside_boxes,
    join_maps,
    pack_maps,
    split_maps,
    surely_drawn,
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
    """Bits and numbers of one mask, cell by cell."""
    signs = [logits > 0]
    if edges is not None:
        signs.append(clip_logits(logits[None], edges)[0] > 0)
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
    return np.packbits(signs[0]), logits[kept]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("margin", [None, 0.05])
def test_maps_are_those_of_the_plain_form_and_give_the_same_masks(seed, margin):
    logits, boxes = made(seed)
    steps = (logits * STEPS).astype(np.int8)
    cells = logits.shape[1:]
    filled = (float(cells[0]), cells[1] - 0.5)
    edges = inside_boxes(boxes, cells, filled, margin)
    some = np.array([7, 0, 2, 4])
    packed = pack_maps(steps, edges)
    none = pack_maps(steps[:0], inside_boxes(boxes[:0], cells, filled, margin))
    frames = [(0, cells), (len(steps), cells), (0, (2, 3)), (len(steps), cells)]
    joined = join_maps([none, packed, none, packed])
    *_, again = split_maps(joined, frames)
    decoded = again.logits(some, cells, edges and (edges[0][some], edges[1][some]))
    for k, got in zip(some, decoded, strict=True):
        own = edges and (edges[0][k : k + 1], edges[1][k : k + 1])
        bits, numbers = plain(steps[k], own)
        first = packed.counts[:k].sum()
        assert np.array_equal(packed.bits[k], bits)
        assert np.array_equal(packed.numbers[first : first + packed.counts[k]], numbers)
        for one in (None, own):
            wanted, got_one = (clip_logits(maps[None], one)[0] for maps in (logits[k], got))
            size = (3 * cells[0], 4 * cells[1])
            first, second = (masks.from_logits(maps, size, filled) for maps in (wanted, got_one))
            assert (first.x, first.y) == (second.x, second.y)
            assert np.array_equal(first.bitmap, second.bitmap)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("margin", [None, 0.05])
def test_a_mask_that_is_surely_drawn_has_a_pixel(seed, margin):
    logits, boxes = made(seed, count=30)
    filled = (float(logits.shape[1]), logits.shape[2] - 0.5)
    edges = inside_boxes(boxes, logits.shape[1:], filled, margin)
    drawn = surely_drawn((logits * STEPS).astype(np.int8), filled, edges)
    for bit, maps in ((THING, clip_logits(logits, edges)), (STUFF, logits)):
        sure = np.flatnonzero(drawn & bit)
        for times in (1, 1.3, 4):  # as few pixels as cells, and more
            size = tuple(int(np.ceil(times * side)) for side in filled)
            assert all(masks.from_logits(maps[k], size, filled).bitmap.size for k in sure)
    assert len(sure) > 3 or min(logits.shape[1:]) < 3


def test_frames_without_masks_are_nothing():
    none = pack_maps(np.zeros((0, 4, 5), np.int8), None)
    assert join_maps([none, none]) == b""
    first, second = split_maps(b"", [(0, (4, 5)), (0, (4, 5))])
    assert len(first.counts) == len(second.numbers) == 0
