"""Masks by blocks of pixels are those of every pixel, to the pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ape_stream import masks
from ape_stream.masks import upsample
from ape_stream.masks.interpolation import axis

SIDE = st.integers(1, 12)
PIXELS = st.integers(1, 90)
THRESHOLD = 0.25


def maps(height, width, seed):
    """Cells on both sides of the threshold, at it, and a rounding away from it."""
    random = np.random.default_rng(seed)
    smooth = random.normal(size=(height, width)).cumsum(0).cumsum(1).astype(np.float32)
    close = np.float32(THRESHOLD) + random.integers(-2, 3, (height, width)) * np.float32(2**-25)
    return np.where(random.random((height, width)) < 0.4, close, smooth).astype(np.float32)


@given(SIDE, SIDE, PIXELS, PIXELS, st.floats(0.3, 1.0), st.integers(0, 999))
def test_blocks_hold_what_every_pixel_does(height, width, rows, columns, part, seed):
    logits = maps(height, width, seed)
    along = axis(rows, part * height, height), axis(columns, part * width, width)
    every = upsample.every_pixel(logits, *along, THRESHOLD)
    np.testing.assert_array_equal(upsample.by_blocks(logits, *along, THRESHOLD), every)


@pytest.mark.parametrize("size", [(1080, 1920), (1920, 1080), (600, 37)])
def test_large_masks_are_those_of_every_pixel(size, monkeypatch):
    logits = maps(34, 60, 7)
    found = masks.from_logits(logits, size, (33.75, 59.5), THRESHOLD)
    monkeypatch.setattr(upsample, "by_blocks", upsample.every_pixel)
    wanted = masks.from_logits(logits, size, (33.75, 59.5), THRESHOLD)
    assert (found.x, found.y) == (wanted.x, wanted.y)
    np.testing.assert_array_equal(found.bitmap, wanted.bitmap)
