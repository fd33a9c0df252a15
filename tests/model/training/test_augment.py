"""What happens to a image, in cases worked by hand."""

import random

import cv2
import numpy as np
import pytest

from ape_model.config import NANO
from ape_model.training.data.augment import (
    Placement,
    View,
    compares,
    jittered,
    mirror_words,
    paste,
    place,
    split_regions,
)
from ape_model.training.data.coco_dataset import CocoBatches
from ape_model.training.data.config import DataConfig
from ape_model.training.data.world_dataset import Canvas, Phase
from ape_model.training.errors import DataError
from ape_stream.datasets.instances import InstanceData, InstanceImage, Region, Skips

STAGES = (Phase(0, (Canvas(64, 96, 2),)),)
THING = Region(0, [], True, ())
STUFF = Region(1, [], True, ())


def view(ids, regions, colour=0):
    ids = np.array(ids, np.int32)
    return View(np.full((*ids.shape, 3), colour, np.uint8), ids, tuple(regions))


def blocks(rows, cols):
    """Ids with big enough parts: 4 x 4 pixels for each entry."""
    return np.kron(np.array(rows, np.int32).reshape(-1, cols), np.ones((4, 4), np.int32))


def test_an_image_is_placed_scaled_and_mirrored():
    ids = np.array([[1, 2], [3, 4]], np.int32)
    found = place(ids, Placement(2.0, 0, 1), (4, 6), 0)
    assert found.tolist() == [
        [0, 1, 1, 2, 2, 0],
        [0, 1, 1, 2, 2, 0],
        [0, 3, 3, 4, 4, 0],
        [0, 3, 3, 4, 4, 0],
    ]
    mirrored = place(ids, Placement(1.0, 0, 0, mirrored=True), (2, 2), 0)
    assert mirrored.tolist() == [[2, 1], [4, 3]]


def test_what_lies_outside_the_canvas_is_cut_off():
    ids = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
    assert place(ids, Placement(1.0, -1, -1), (2, 3), 0).tolist() == [[5, 6, 0], [0, 0, 0]]


def test_a_shrunk_image_is_the_mean_of_what_it_was():
    image = np.array([[0, 100], [100, 200]], np.uint8)[..., None].repeat(3, axis=2)
    assert place(image, Placement(0.5, 0, 0), (1, 1), 0).tolist() == [[[100, 100, 100]]]


def test_jitter_keeps_to_its_scales_and_leaves_no_gap_where_the_image_is_larger():
    rng = random.Random(0)
    sides = set()
    for _ in range(200):
        where = jittered((40, 60), (80, 120), (0.5, 2.0), rng)
        assert 1.0 <= where.scale <= 4.0  # the one that fits is 2
        for start, side, room in ((where.top, 40, 80), (where.left, 60, 120)):
            spare = room - round(where.scale * side)
            assert min(0, spare) <= start <= max(0, spare)
        sides.add(where.mirrored)
    assert sides == {True, False}


def test_two_ponds_are_two_regions_and_two_parts_of_a_thing_are_one():
    ids = blocks([1, 0, 1, 2, 0, 2], 6)
    found, kept = split_regions(view(ids, [STUFF, THING]), things=1)
    assert kept == [STUFF, STUFF, THING]
    assert found[0, ::4].tolist() == [1, 0, 2, 3, 0, 3]


def test_stuff_that_touches_by_a_corner_hangs_together():
    _, kept = split_regions(view(blocks([1, 0, 0, 1], 2), [STUFF]), things=1)
    assert kept == [STUFF]


def test_parts_of_fewer_than_sixteen_pixels_are_not_asked_for():
    ids = np.zeros((8, 12), np.int32)
    ids[:4, :4] = 1  # sixteen
    ids[:3, 6:11] = 1  # fifteen
    ids[6:, :5] = 2  # ten
    found, kept = split_regions(view(ids, [STUFF, THING]), things=1)
    assert kept == [STUFF]
    assert (found > 0).sum() == 16


def test_pasted_things_hide_what_is_under_them_and_have_soft_rims():
    under = view(np.ones((12, 24)), [STUFF], colour=0)
    over_ids = np.zeros((12, 24), np.int32)
    over_ids[:, :8], over_ids[:, 16:] = 1, 2
    found = paste(under, view(over_ids, [THING, THING], colour=200), [1])
    assert found.regions == (STUFF, THING, THING)
    assert found.ids[5].tolist() == [1] * 16 + [3] * 8  # the first of the two was not chosen
    assert found.image[5, 5, 0] == 0
    assert found.image[5, 23, 0] == 200
    assert 100 < found.image[5, 16, 0] < 200  # just inside the rim
    assert 0 < found.image[5, 15, 0] < 100  # just outside


@pytest.mark.parametrize(
    ("sentence", "mirrored"),
    [
        ("the left dog", "the right dog"),
        ("the dog right of the leftmost car", "the dog left of the rightmost car"),
        ("Left, a bright light", "right, a bright light"),
        ("the biggest dog", "the biggest dog"),
    ],
)
def test_words_of_side_are_exchanged_and_no_others(sentence, mirrored):
    assert mirror_words(sentence) == mirrored


def test_some_words_compare():
    assert compares(["a dog", "the second car"])
    assert compares(["the biggest dog"])
    assert not compares(["a bright red car", "the copyright sign"])


def striped(tmp_path, **changes):
    """A image of 64 x 64 whose left half is the thing, white on grey."""
    pixels = np.full((64, 64, 3), 90, np.uint8)
    pixels[:, :32] = 255
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    box = [[0, 0, 32, 0, 32, 64, 0, 64]]
    region = Region(0, box, True, ("the left half",))
    image = InstanceImage(tmp_path / "a.png", (64, 64), (region,))
    data = InstanceData((image,), ("half",), ((),), 1, Skips())
    config = DataConfig("a.json", **({"photometric": 0.0} | changes))
    return CocoBatches(data, STAGES, config, seed=0, network=NANO, steps=9)


def test_a_mirrored_image_is_spoken_of_in_mirrored_words(tmp_path):
    batches = striped(tmp_path, prompts="expression")
    rng = random.Random(0)
    seen = set()
    for _ in range(20):
        example = batches.jittered(batches.usable[0], (64, 64), rng)
        ((text, row),) = example.sentences
        grey = np.flatnonzero((example.image == 90).all(-1).any(0))
        on_the_left = example.boxes[row, [0, 2]].mean() < grey.mean()
        assert text == ("the left half" if on_the_left else "the right half")
        seen.add(text)
    assert seen == {"the left half", "the right half"}


def test_an_image_whose_words_compare_is_never_cut(tmp_path):
    for kind in ("phrase", "expression"):
        batches = striped(tmp_path, prompts=kind, scale=(0.5, 3.0))
        assert batches._scale(batches.usable[0]) == (0.5, 1.0)
    assert striped(tmp_path, scale=(0.5, 3.0))._scale(batches.usable[0]) == (0.5, 3.0)


def test_every_jittered_example_has_boxes_that_bound_its_masks(tmp_path):
    batches = striped(tmp_path, copy_paste=1.0)
    rng = random.Random(0)
    counts = set()
    for _ in range(30):
        example = batches.jittered(batches.usable[0], (64, 96), rng)
        counts.add(len(example.boxes))
        for row, (x1, y1, x2, y2) in enumerate(example.boxes, start=1):
            rows, cols = np.nonzero(example.ids == row)
            assert (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)
    assert 2 in counts  # something was pasted


def test_descriptions_are_given_only_where_they_are_asked_for(tmp_path):
    assert not any(striped(tmp_path)[0].sentences)
    assert all(striped(tmp_path, prompts="phrase")[0].sentences)


def test_data_without_phrases_cannot_be_described(tmp_path):
    batches = striped(tmp_path)
    bare = InstanceImage(tmp_path / "a.png", (64, 64), (THING,))
    data = InstanceData((bare,), ("half",), ((),), 1, Skips())
    with pytest.raises(DataError, match=r"a\.json: no annotation has `phrases`"):
        CocoBatches(
            data, STAGES, DataConfig("a.json", prompts="phrase"), seed=0, network=NANO, steps=1
        )
    assert batches.usable


def test_light_and_colour_change_as_often_as_asked_for_and_no_region_moves(tmp_path):
    still, lit = (striped(tmp_path, photometric=share, copy_paste=0.0) for share in (0.0, 1.0))
    one, other = (b.jittered(b.usable[0], (64, 64), random.Random(1)) for b in (still, lit))
    assert not np.array_equal(one.image, other.image)
    assert np.array_equal(one.ids, other.ids)


def test_stuff_stays_whole_where_asked(tmp_path):
    image = striped(tmp_path).usable[0]
    halves = [[0, 0, 16, 0, 16, 64, 0, 64], [48, 0, 64, 0, 64, 64, 48, 64]]
    image = InstanceImage(image.path, image.size, (Region(0, halves, True, ()),))
    data = InstanceData((image,), ("pond",), ((),), 0, Skips())
    for parts in (True, False):
        config = DataConfig("a.json", stuff_in_parts=parts)
        batches = CocoBatches(data, STAGES, config, seed=0, network=NANO, steps=1)
        assert len(batches.plain(0, 64).classes) == (2 if parts else 1)
