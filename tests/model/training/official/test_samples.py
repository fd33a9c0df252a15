"""What happens to an image and its regions, in cases worked by hand."""

import random

import numpy as np
import pytest

from ape_model.training.data.augment import Placement
from ape_model.training.official.paste import SampleRegion, paste_on_free
from ape_model.training.official.samples import (
    UNKNOWN,
    _moved,
    clean,
    counts,
    draw_phrases,
    stuff_parts,
)


def square(side, box, size=(64, 64)):
    """A thing that fills its box, and an image in which it is white."""
    x, y = box
    mask = np.zeros(size, bool)
    mask[y : y + side, x : x + side] = True
    image = np.where(mask[..., None], np.uint8(255), np.uint8(0)).repeat(3, axis=-1)
    return image, SampleRegion(3, (x, y, x + side, y + side), mask)


def test_things_are_pasted_where_nothing_is():
    image, thing = square(20, (5, 5))
    under = np.full((80, 90, 3), 7, np.uint8)
    there = np.zeros((80, 90), bool)
    there[:, :45] = True
    old = SampleRegion(1, (0, 0, 45, 80), there)
    hits = 0
    for seed in range(20):
        found = paste_on_free(image, [thing], under, [old], random.Random(seed))
        if found is None:
            continue
        hits += 1
        kept, new = found.regions
        assert kept is old
        assert new.class_id == 3
        assert not (new.mask & there).any()
        assert new.mask.sum() >= 100
        assert (found.image[new.mask] == 255).all()
        assert (found.image[~new.mask] == 7).all()
        np.testing.assert_array_equal(found.covered, new.mask)
        x, y, right, bottom = map(int, new.box)
        assert new.mask[y:bottom, x:right].any(0).all()
        assert new.mask[:, :x].sum() + new.mask[:, right:].sum() == 0
    assert hits > 10
    assert (under == 7).all()


def test_what_has_no_room_is_not_pasted():
    image, thing = square(30, (5, 5))
    small = np.zeros((40, 200, 3), np.uint8)  # ten pixels higher than the thing: too low
    assert paste_on_free(image, [thing], small, [], random.Random(0)) is None
    full = SampleRegion(1, (0, 0, 99, 99), np.ones((99, 99), bool))
    empty = np.zeros((99, 99, 3), np.uint8)
    assert paste_on_free(image, [thing], empty, [full], random.Random(0)) is None
    unknown = SampleRegion(3, thing.box, None)  # only a box
    assert paste_on_free(image, [unknown], empty, [], random.Random(0)) is None


def test_a_large_thing_has_a_soft_rim():
    rows, columns = np.mgrid[:140, :140]
    mask = np.hypot(rows - 70, columns - 70) < 65
    image = np.full((140, 140, 3), 255, np.uint8)
    disc = SampleRegion(3, (5, 5, 136, 136), mask)
    under = np.zeros((250, 250, 3), np.uint8)
    found = paste_on_free(image, [disc], under, [], random.Random(1))
    values = np.unique(found.image)
    assert values.min() == 0
    assert values.max() == 255
    assert len(values) > 10
    assert found.regions[0].mask.sum() == mask.sum()


def test_small_things_come_first():
    image, large = square(40, (0, 0))
    _, small = square(12, (50, 50))
    under = np.zeros((99, 99, 3), np.uint8)
    found = paste_on_free(image, [large, small], under, [], random.Random(0))
    areas = [int(region.mask.sum()) for region in found.regions]
    assert areas == sorted(areas)


@pytest.mark.parametrize("mirrored", [False, True])
def test_boxes_and_masks_move_together(mirrored):
    _, thing = square(20, (10, 30))
    where = Placement(1.5, -6, -12, mirrored)
    masked = _moved(thing, where, (64, 64), (80, 70))
    boxed = _moved(SampleRegion(3, thing.box, None, "left one"), where, (64, 64), (80, 70))
    assert boxed.box == pytest.approx(masked.box, abs=1)
    # 15..45 of 96 columns, less 12; mirrored, 51..81 less 12.
    assert boxed.box == ((39, 39, 69, 69) if mirrored else (3, 39, 33, 69))
    assert boxed.phrase == ("right one" if mirrored else "left one")
    assert _moved(thing, Placement(1.0, 0, -40), (64, 64), (64, 24)) is None
    assert _moved(boxed, Placement(1.0, 0, -80), (80, 70), (64, 24)) is None


def test_stuff_is_taken_apart_by_outlines():
    plane = np.zeros((40, 60), np.int32)
    plane[5:25, 5:25] = 2
    plane[10:15, 10:15] = UNKNOWN  # a hole belongs to what is around it
    plane[5:25, 40:50] = 2
    plane[30:38, 0:8] = 1  # 64 pixels are too few
    found = stuff_parts(plane, things=7)
    assert sorted(region.class_id for region in found) == [8, 8]
    assert sorted(int(region.mask.sum()) for region in found) == [200, 400]
    assert sorted(region.box for region in found) == [(5, 5, 25, 25), (40, 5, 50, 25)]


def test_of_regions_that_overlap_one_phrase_is_drawn():
    near = [SampleRegion(0, (k, 0, k + 20, 20), None, f"phrase {k}") for k in (0, 1, 2)]
    far = SampleRegion(0, (50, 50, 60, 60), None, "far")
    firsts = set()
    for seed in range(12):
        found = draw_phrases([*near, far], 9, 0.6, random.Random(seed))
        assert len(found) == 2
        firsts |= {one.phrase for one in found}
    assert firsts == {"phrase 0", "phrase 1", "phrase 2", "far"}
    assert len(draw_phrases([*near, far], 1, 0.6, random.Random(0))) == 1
    assert len(draw_phrases([*near, far], 9, 1.0, random.Random(0))) == 4


def test_phrases():
    assert clean(' The man\'s "old"  hat-box / lid, (red)! ') == "the mans old hat box lid red"
    assert counts(["the Second one from the left"])
    assert not counts(["the largest one", "left"])
