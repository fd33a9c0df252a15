"""OpenImages: cases worked by hand, with group boxes and a class tree."""

import dataclasses

import numpy as np
import pytest
from made_up import federation, found_regions, perfect, true_regions, truth_of

from ape_stream.evaluation.benchmarks.scoring import openimages
from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions

ANIMAL, DOG, CAR = 1, 2, 3
TREE = {
    "LabelName": "/root",
    "Subcategory": [
        {"LabelName": "/animal", "Subcategory": [{"LabelName": "/dog"}]},
        {"LabelName": "/car"},
    ],
}
ABOVE = openimages.ancestors(TREE, {"/animal": ANIMAL, "/dog": DOG, "/car": CAR})
BOTH = federation(positive=[(1, ANIMAL), (1, DOG)])

PLAIN = [(1, DOG, [0, 0, 10, 10]), (1, DOG, [20, 0, 10, 10])]
GROUP = (1, DOG, [40, 0, 30, 30], True)
# Wrong, right, two inside the group, right.
FOUND = [
    (1, DOG, [60, 45, 10, 10], 0.95),
    (1, DOG, [0, 0, 10, 10], 0.9),
    (1, DOG, [40, 0, 10, 10], 0.8),
    (1, DOG, [55, 5, 10, 10], 0.3),
    (1, DOG, [20, 0, 10, 10], 0.6),
]


def judge(true, found, known=BOTH, **options):
    truth = truth_of(true_regions(true), [ANIMAL, DOG, CAR], [1], known)
    return openimages.score(truth, found_regions(found), **options)


def test_a_group_counts_once():
    # Precision 0, 1/2, 2/3, 3/4 (the group has its best score, 0.8): 3/4 at all three recalls.
    scores = judge([*PLAIN, GROUP], FOUND, groups="challenge")
    assert scores.by_class["class 2"]["box/AP50"] == pytest.approx(75.0)
    assert scores.figures == {"box/AP50": pytest.approx(75.0)}  # no other class has a true box


@pytest.mark.parametrize("order", [range(5), (4, 2, 0, 3, 1), (3, 1, 4, 0, 2)])
def test_the_order_of_detections_changes_nothing(order):
    # The published code sorts twice and then judges by the scores of other detections.
    scores = judge([*PLAIN, GROUP], [FOUND[k] for k in order], groups="challenge")
    assert scores.figures["box/AP50"] == pytest.approx(75.0)


def test_detections_are_copied_to_the_classes_above():
    # An animal where the dog of score 0.95 is: only the copies find it.
    animal = (1, ANIMAL, [60, 45, 10, 10])
    scores = judge([*PLAIN, GROUP, animal], FOUND, groups="challenge", tree=ABOVE)
    assert scores.figures["box/AP50"] == pytest.approx(37.5)
    assert scores.figures["box/AP50 expanded"] == pytest.approx(87.5)
    assert scores.by_class["class 1"] == {
        "box/AP50": 0.0,
        "box/AP50 expanded": pytest.approx(100.0),
    }


def test_group_boxes_are_ordinary_ones_in_the_figures_of_the_paper():
    # The group box has IoU 1/9 with what lies inside: it is missed, and both are wrong.
    # Precision 0, 1/2, 1/3, 2/4, 2/5: 1/2 at two of three recalls.
    scores = judge([*PLAIN, GROUP], FOUND)
    assert scores.figures["box/AP50"] == pytest.approx(100 / 3)


def test_a_detection_has_no_second_choice():
    # Both overlap the first box most; the second one also has IoU 0.6 with the other box.
    true = [(1, DOG, [0, 0, 20, 10]), (1, DOG, [5, 0, 20, 10])]
    found = [(1, DOG, [0, 0, 20, 10], 0.9), (1, DOG, [2, 0, 20, 10], 0.8)]
    assert judge(true, found).figures["box/AP50"] == pytest.approx(50.0)


def test_what_found_a_box_of_its_own_is_not_the_groups():
    true = [(1, DOG, [50, 5, 10, 10]), GROUP]
    found = [(1, DOG, [50, 5, 10, 10], 0.9), (1, DOG, [42, 2, 6, 6], 0.8)]
    assert judge(true, found, groups="challenge").figures["box/AP50"] == 100.0


def test_only_verified_classes_are_judged():
    wrong = (1, CAR, [0, 0, 10, 10], 0.9)
    right = [(1, DOG, box, 0.5) for _, _, box in PLAIN]
    with_car = [*PLAIN, (2, CAR, [0, 0, 10, 10])]
    found = found_regions([wrong, *right, (2, CAR, [0, 0, 10, 10], 0.5)])
    for negative, figure in (([], 100.0), ([(1, CAR)], 75.0)):
        known = federation(negative=negative, positive=[(1, DOG), (2, CAR)])
        truth = truth_of(true_regions(with_car), [ANIMAL, DOG, CAR], None, known)
        assert openimages.score(truth, found).figures["box/AP50"] == pytest.approx(figure)
    with pytest.raises(ValueError, match="of a class that is not verified"):
        judge(PLAIN, FOUND, federation(positive=[(1, ANIMAL)]))
    with pytest.raises(ValueError, match="need the federation"):
        judge(PLAIN, FOUND, None)


def test_shards_and_the_best_of_an_image():
    known = federation(positive=[(k, key) for k in (1, 2) for key in (ANIMAL, DOG)])
    both = [*PLAIN, GROUP, *((2, *one[1:]) for one in [*PLAIN, GROUP])]
    truth = truth_of(true_regions(both), [ANIMAL, DOG, CAR], None, known)
    found = found_regions([*FOUND, *((2, *one[1:]) for one in FOUND)])
    options = {"tree": ABOVE, "detections": 4}
    whole = openimages.score(truth, found, groups="challenge", **options)
    parts = [found.select(found.image_ids == key) for key in (2, 1)]
    shards = FoundRegions.join([openimages.judged(truth, part, **options) for part in parts])
    assert len(shards) == 8  # the weakest of each image is left out
    assert openimages.score(truth, shards, groups="challenge", **options) == whole


def test_perfect_predictions_are_100():
    regions = true_regions([*PLAIN, (1, ANIMAL, [40, 0, 10, 10])])
    truth = truth_of(regions, [ANIMAL, DOG, CAR], [1], BOTH)
    # A dog is an animal: the truth of the expanded figure has to say so, too.
    full = true_regions([*PLAIN, *((1, ANIMAL, one[2]) for one in PLAIN)])
    assert openimages.score(truth, perfect(regions)).figures == {"box/AP50": 100.0}
    expanded = openimages.score(
        dataclasses.replace(truth, regions=full), perfect(regions.select(np.arange(2))), ABOVE
    )
    assert expanded.figures["box/AP50 expanded"] == 100.0


def test_classes_above():
    deep = {
        "LabelName": "/root",
        "Subcategory": [
            {
                "LabelName": "/a",
                "Subcategory": [{"LabelName": "/x", "Subcategory": [{"LabelName": "/b"}]}],
            },
            {"LabelName": "/c", "Subcategory": [{"LabelName": "/b"}]},
        ],
    }
    # Two ways lead to b; the root and the unknown label x are above nothing.
    assert openimages.ancestors(deep, {"/a": 1, "/b": 2, "/c": 3}) == {2: (1, 3)}
