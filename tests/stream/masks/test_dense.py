"""The best of several maps at every pixel: blocks filled at once, as every map upsampled."""

import numpy as np
import pytest

from ape_stream.masks import argmax_upsampled, from_logits, paste, upsampled


def smooth(random, shape):
    """Maps whose neighbouring cells are alike, as a network's are."""
    noise = random.random(shape, dtype=np.float32)
    for axis in (1, 2):
        for _ in range(2):
            noise = noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)
    return noise / noise.max()


def plainly(values, gates, size, filled):
    """Every map at every pixel, and the largest there."""
    largest = upsampled(values, size, filled).argmax(0)
    gate = upsampled(np.broadcast_to(gates, values.shape).copy(), size, filled)
    return np.where(np.take_along_axis(gate, largest[None], 0)[0] >= 1, largest + 1, 0)


@pytest.mark.parametrize("maps", [1, 2, 9])
@pytest.mark.parametrize(
    ("cells", "filled", "size"),
    [
        ((12, 20), (11.25, 20.0), (180, 320)),  # a padded canvas
        ((9, 7), (9.0, 6.3), (101, 83)),  # no whole number of pixels for a cell
        ((16, 16), (16.0, 16.0), (9, 5)),  # fewer pixels than cells
        ((1, 3), (1.0, 3.0), (4, 12)),
    ],
)
def test_the_fast_form_gives_every_pixel_what_the_plain_form_gives(maps, cells, filled, size):
    random = np.random.default_rng(maps)
    values = smooth(random, (maps, *cells))
    for gates in (
        np.ones((1, *cells), np.float32),
        smooth(random, (1, *cells)) * 1.3,
        smooth(random, (maps, *cells)) * 1.3,
    ):
        found = argmax_upsampled(values, gates, size, filled)
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, plainly(values, gates, size, filled))


def test_upsampled_maps_are_those_of_single_masks():
    logits = smooth(np.random.default_rng(0), (2, 12, 20)) - 0.5
    above = upsampled(logits, (90, 130), (12.0, 17.5)) > 0
    for one, wanted in zip(logits, above, strict=True):
        mask = from_logits(one, (90, 130), (12.0, 17.5))
        np.testing.assert_array_equal(paste(mask, (90, 130)), wanted)


def test_of_equal_maps_the_first_wins_and_no_map_is_nothing():
    equal, gates = np.ones((3, 4, 4), np.float32), np.ones((1, 4, 4), np.float32)
    assert (argmax_upsampled(equal, gates, (16, 16), (4.0, 4.0)) == 1).all()
    assert not argmax_upsampled(equal[:0], gates, (16, 16), (4.0, 4.0)).any()
