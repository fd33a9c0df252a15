"""Instances by Cityscapes' rule: a case worked by hand, on one row of pixels."""

import numpy as np
import pytest
from pycocotools import mask as coco

from ape_stream.evaluation.benchmarks.scoring import cityscapes
from ape_stream.evaluation.benchmarks.scoring.records import (
    Classes,
    FoundRegions,
    Images,
    MaskCodes,
    RegionTruth,
    TrueRegions,
)

WIDTH = 1000
CAR, BUS = 26, 28
VOID = cityscapes.NOT_EVALUATED


def codes(spans):
    masks = np.zeros((1, WIDTH, len(spans)), np.uint8, order="F")
    for k, (start, stop) in enumerate(spans):
        masks[0, start:stop, k] = 1
    return MaskCodes.of([dict(code) for code in coco.encode(masks)])


def truth_of(*rows):
    """Rows of image, class, whether it is a group, first pixel, pixel after the last."""
    images, classes, groups, starts, stops = zip(*rows, strict=True)
    spans = list(zip(starts, stops, strict=True))
    return RegionTruth(
        Images(np.arange(2), np.full((2, 2), (1, WIDTH), np.int32)),
        Classes(np.array([CAR, BUS]), ("car", "bus")),
        TrueRegions(
            image_ids=np.array(images),
            class_ids=np.array(classes),
            xywh=np.array([(a, 0, b - a, 1) for a, b in spans], float),
            areas=np.array([b - a for a, b in spans], float),
            groups=np.array(groups),
            masks=codes(spans),
        ),
    )


def found_of(*rows):
    """Rows of image, class, score, first pixel, pixel after the last."""
    images, classes, scores, starts, stops = zip(*rows, strict=True)
    return FoundRegions(
        image_ids=np.array(images),
        class_ids=np.array(classes, np.int32),
        xywh=np.zeros((len(rows), 4), np.float32),
        scores=np.array(scores, np.float32),
        masks=codes(list(zip(starts, stops, strict=True))),
    )


TRUTH = truth_of(
    (0, CAR, False, 0, 200),
    (0, CAR, False, 300, 500),
    (0, CAR, True, 600, 800),  # a group
    (0, CAR, False, 850, 900),  # below 100 pixels
    (0, VOID, True, 900, 1000),
)
FOUND = found_of(
    (0, CAR, 0.9, 0, 200),  # right
    (0, CAR, 0.8, 0, 180),  # the same car once more: wrong
    (0, CAR, 0.7, 600, 700),  # on the group: ignored
    (0, CAR, 0.6, 300, 460),  # IoU .8: right below that
    (0, CAR, 0.5, 850, 910),  # on the small car and on void: ignored
    (0, CAR, 0.4, 500, 600),  # wrong
)


def test_the_case_worked_by_hand():
    # At .5 from the lowest score: precision 2/4 2/3 1/2 1/1, recall 1 1 .5 .5; then 1, 0.
    low = 0.25 * (2 / 3 + 1 / 2 + 1 + 1)
    # From .8 on: 1/4 1/3 1/2 1/1 at recall .5.
    high = 0.25 * (1 + 1)
    scores = cityscapes.score(TRUTH, FOUND)
    expected = {"mask/AP": 100 * (6 * low + 4 * high) / 10, "mask/AP50": 100 * low}
    assert scores.figures == pytest.approx(expected)
    assert scores.by_class["car"] == pytest.approx(expected)
    assert scores.by_class["bus"] == {"mask/AP": None, "mask/AP50": None}


def test_the_order_of_images_and_detections_changes_nothing():
    order = np.random.default_rng(0).permutation(len(FOUND))
    assert cityscapes.score(TRUTH, FOUND.select(order)) == cityscapes.score(TRUTH, FOUND)


@pytest.mark.parametrize(("stop", "ap50"), [(950, 12.5), (951, 50.0)])
def test_a_detection_is_ignored_for_more_than_the_threshold_of_void(stop, ap50):
    # Half of the second one is void up to pixel 950: wrong, so precision is 0 and 1/2 at recall 0
    # and 1/2. One pixel further it is more than half: ignored.
    truth = truth_of((0, CAR, False, 0, 200), (0, CAR, False, 300, 500), (0, VOID, True, 900, 1000))
    found = found_of((0, CAR, 0.5, 0, 200), (0, CAR, 0.9, 850, stop))
    assert cityscapes.score(truth, found).figures["mask/AP50"] == pytest.approx(ap50)


def test_a_class_that_nothing_is_found_of_has_0():
    truth = truth_of((0, CAR, False, 0, 200), (1, BUS, False, 0, 200))
    scores = cityscapes.score(truth, found_of((0, CAR, 0.9, 0, 200)))
    assert scores.by_class["bus"]["mask/AP"] == 0
    assert scores.figures["mask/AP"] == pytest.approx(50)


def test_detections_without_masks_are_refused():
    boxes = found_of((0, CAR, 0.9, 0, 200))
    without = FoundRegions(boxes.image_ids, boxes.class_ids, boxes.xywh, boxes.scores)
    with pytest.raises(ValueError, match="have them"):
        cityscapes.score(TRUTH, without)
