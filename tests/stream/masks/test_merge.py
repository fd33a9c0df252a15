"""Duplicates of a thing and parts of stuff become one instance."""

import numpy as np
import pytest

from ape_stream import masks
from ape_stream.types import Instances, Mask


def found(*regions):
    """Regions of a 20x30 frame from (prompt, score, x, y, width, height)."""
    drawn = tuple(Mask(np.ones((h, w), np.bool_), x, y) for _, _, x, y, w, h in regions)
    return Instances(
        boxes=masks.boxes(drawn),
        scores=np.array([region[1] for region in regions], np.float32),
        prompt_ids=np.array([region[0] for region in regions], np.int64),
        masks=drawn,
        size=(20, 30),
    )


def test_a_part_of_a_stronger_region_is_dropped():
    both = found((0, 0.6, 2, 2, 3, 3), (0, 0.9, 0, 0, 10, 10), (0, 0.8, 20, 0, 5, 5))
    kept = masks.suppress_duplicates(both)
    assert kept.scores.tolist() == np.float32([0.9, 0.8]).tolist()


def test_the_whole_around_a_stronger_part_is_dropped_too():
    kept = masks.suppress_duplicates(found((0, 0.9, 2, 2, 3, 3), (0, 0.6, 0, 0, 10, 10)))
    assert masks.area(kept.masks[0]) == 9
    assert len(kept) == 1


def test_another_prompt_may_name_the_same_pixels():
    both = found((0, 0.9, 0, 0, 10, 10), (1, 0.6, 0, 0, 10, 10))
    assert masks.suppress_duplicates(both) is both


def test_regions_that_only_touch_stay():
    both = found((0, 0.9, 0, 0, 10, 10), (0, 0.6, 5, 0, 10, 10))  # half of each is shared
    assert masks.suppress_duplicates(both) is both
    assert len(masks.suppress_duplicates(both, containment=0.4)) == 1


def test_nothing_found_stays_nothing():
    nothing = Instances.empty((20, 30))
    assert masks.suppress_duplicates(nothing) is nothing
    assert masks.merge_stuff(nothing, np.array([True])) is nothing


def test_all_regions_of_a_stuff_prompt_become_one():
    mixed = found((1, 0.5, 0, 0, 4, 4), (0, 0.9, 9, 9, 2, 2), (1, 0.7, 20, 10, 4, 4))
    merged = masks.merge_stuff(mixed, np.array([False, True]))
    assert merged.prompt_ids.tolist() == [0, 1]
    assert merged.scores.tolist() == np.float32([0.9, 0.7]).tolist()
    assert merged.boxes[1].tolist() == [0, 0, 24, 14]
    dense = [masks.paste(mask, (20, 30)) for mask in mixed.masks]
    np.testing.assert_array_equal(masks.paste(merged.masks[1], (20, 30)), dense[0] | dense[2])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_united_stuff_is_every_pixel_of_its_parts_cut_to_their_extent(count):
    random = np.random.default_rng(count)
    dense = random.random((count + 1, 20, 30)) < 0.02
    dense[-1] = False  # a part without a pixel
    parts = tuple(masks.crop(one) for one in dense)
    mixed = Instances(
        boxes=masks.boxes(parts),
        scores=random.random(count + 1).astype(np.float32),
        prompt_ids=np.zeros(count + 1, np.int64),
        masks=parts,
        size=(20, 30),
    )
    merged = masks.merge_stuff(mixed, np.array([True]))
    wanted = masks.crop(dense.any(axis=0))
    assert (merged.masks[0].x, merged.masks[0].y) == (wanted.x, wanted.y)
    np.testing.assert_array_equal(merged.masks[0].bitmap, wanted.bitmap)
    assert merged.boxes.tolist() == masks.boxes([wanted]).tolist()
    assert merged.scores.tolist() == [mixed.scores.max()]


def test_things_alone_are_left_as_they_are():
    things = found((0, 0.9, 0, 0, 3, 3))
    assert masks.merge_stuff(things, np.array([False])) is things
