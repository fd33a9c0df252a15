"""The records of scorers: masks as text, selections and joins, and what a perceiver found."""

import numpy as np
import pytest
from made_up import H, W, box_code, found_regions
from pycocotools import mask as coco

from ape_stream.evaluation.benchmarks.scoring.pairs import best_of_images, by_pair, in_pairs
from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, MaskCodes, mask_code
from ape_stream.masks import decode_rle, paste
from ape_stream.types import Instances, Mask

CODES = [box_code(box) for box in ([0, 0, 9, 9], [5, 5, 50, 20], [70, 50, 3, 3], [1, 2, 3, 4])]


NONE = np.zeros(4, bool)


@pytest.mark.parametrize(
    "index",
    [np.array([3, 0, 0, 2]), np.array([0]), np.array([], int), NONE, ~NONE, np.arange(4) % 2 == 0],
)
def test_masks_are_chosen_as_rows_of_an_array(index):
    masks = MaskCodes.of(CODES)
    rows = np.arange(4)[index]
    selected = masks.select(index)
    assert [selected[k] for k in range(len(selected))] == [CODES[row] for row in rows]
    assert selected.areas().tolist() == [int(coco.area(CODES[row])) for row in rows]
    joined = MaskCodes.join([selected, masks])
    assert [joined[k] for k in range(len(joined))] == [CODES[row] for row in rows] + CODES


def test_segmentations_of_files():
    square = [[2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]]
    assert int(coco.area(mask_code(square, H, W))) == 100
    assert mask_code(CODES[0], H, W) is CODES[0]
    plain = {"size": [2, 3], "counts": [1, 2, 3]}
    dense = paste(decode_rle(mask_code(plain, 2, 3)), (2, 3))
    assert dense.tolist() == [[False, True, False], [True, False, False]]


def test_what_a_perceiver_found():
    mask = Mask(np.ones((4, 3), bool), 10, 20)
    found = Instances(
        boxes=np.array([[10.1, 20.2, 13.3, 24.4]], np.float32),
        scores=np.array([0.5], np.float32),
        prompt_ids=np.array([1]),
        masks=(mask,),
        size=(H, W),
    )
    record = FoundRegions.of(77, found, np.array([3, 6]))
    assert (record.image_ids.tolist(), record.class_ids.tolist()) == ([77], [6])
    assert record.xywh.dtype == np.float32
    assert record.xywh[0] == pytest.approx([10.1, 20.2, 3.2, 4.2], rel=1e-5)
    assert record.masks[0] == box_code([10, 20, 3, 4])
    assert len(FoundRegions.of(77, Instances.empty((H, W)), np.array([3]))) == 0


def test_pairs():
    found = found_regions([(2, 6, [0, 0, 9, 9], 0.2), (1, 6, [0, 0, 9, 9], 0.3)] * 2)
    rows = by_pair(found)
    assert {key: value.tolist() for key, value in rows.items()} == {(1, 6): [1, 3], (2, 6): [0, 2]}
    assert by_pair(found.select(np.zeros(4, bool))) == {}
    listed = in_pairs(np.array([[1, 6], [6, 1]]), np.array([[6, 1]]))
    assert listed.tolist() == [False, True]


def test_of_equal_scores_the_first_counts():
    found = found_regions([(1, k, [0, 0, 9, 9], score) for k, score in enumerate([5, 7, 5, 5, 6])])
    assert best_of_images(found, 3).class_ids.tolist() == [0, 1, 4]
