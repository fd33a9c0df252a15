"""Masks by blocks of pixels are those of every pixel, to the pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ape_stream import masks
from ape_stream.masks import upsample
from ape_stream.masks.interpolation import axis

SIDE = st.integers(1, 12)
PIXELS = st.integers(1, 90)
THRESHOLD = float(np.float32(0.49))


def maps(height, width, seed):
    """Cells on both sides of the threshold, at it, and a rounding away from it."""
    random = np.random.default_rng(seed)
    smooth = random.normal(size=(height, width)).cumsum(0).cumsum(1).astype(np.float32)
    close = np.float32(THRESHOLD) + random.integers(-2, 3, (height, width)) * np.float32(2**-25)
    return np.where(random.random((height, width)) < 0.4, close, smooth).astype(np.float32)


@settings(max_examples=300, deadline=None)
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


def test_a_mean_that_rounding_brings_to_the_threshold_is_not_filled():
    along = axis(97, 5.0, 5), axis(131, 7.0, 7)
    level = np.full((5, 7), np.nextafter(np.float32(THRESHOLD), np.float32(1)))
    every = upsample.every_pixel(level, *along, THRESHOLD)
    assert 0 < every.sum() < every.size  # the cells are above it, not all means are
    np.testing.assert_array_equal(upsample.by_blocks(level, *along, THRESHOLD), every)
