"""Average precision: the published code of COCO and LVIS as oracles, and cases worked by hand."""

import dataclasses

import numpy as np
import pytest
from made_up import (
    CLASSES,
    federation,
    found_regions,
    perfect,
    random_case,
    true_regions,
    truth_of,
)
from oracles import coco_oracle, lvis_oracle

from ape_stream.evaluation.benchmarks.scoring import coco, lvis
from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions

COCO_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
COCO_NAMES += ("AR@1", "AR@10", "AR@100", "ARs", "ARm", "ARl")
KINDS = ("box", "mask")


def percent(value):
    return None if value == -1 else 100 * value


@pytest.mark.parametrize("seed", range(20))
def test_figures_are_those_of_pycocotools(seed):
    case = random_case(seed)
    scores = coco.score(case.truth, case.found)
    for kind in KINDS:
        right = map(percent, coco_oracle(case.file, case.results, kind))
        named = {f"{kind}/{name}": value for name, value in zip(COCO_NAMES, right, strict=True)}
        assert named == pytest.approx({key: scores.figures[key] for key in named}, abs=1e-12)


@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")  # of its logging
@pytest.mark.parametrize("seed", range(20))
def test_figures_are_those_of_lvis(seed):
    case = random_case(seed, federated=True)
    scores = lvis.score(case.truth, case.found, detections=20)
    for kind in KINDS:
        right = lvis_oracle(case.file, case.results, kind, detections=20)
        named = {f"{kind}/{name}": percent(value) for name, value in right.items()}
        assert named == pytest.approx({key: scores.figures[key] for key in named}, abs=1e-12)
        assert named[f"{kind}/APr"] is not None


def test_the_order_of_images_and_shards_change_nothing():
    case = random_case(0, federated=True)
    # Scores that differ: among equal ones the order of an image's own detections decides.
    scores = np.random.default_rng(0).permutation(len(case.found)).astype(np.float32)
    found = dataclasses.replace(case.found, scores=scores)
    whole = lvis.score(case.truth, found, detections=20)
    parts = [found.select(found.image_ids == key) for key in case.truth.images.ids]
    shards = [lvis.judged(case.truth, part, 20) for part in reversed(parts)]
    assert lvis.score(case.truth, FoundRegions.join(shards), detections=20) == whole
    assert coco.score(case.truth, FoundRegions.join(parts)) == coco.score(case.truth, found)


def test_a_class_is_judged_on_its_own():
    case = random_case(1)
    whole = coco.score(case.truth, case.found).by_class
    for key, name in zip(CLASSES, case.truth.classes.names, strict=True):
        part = case.found.select(case.found.class_ids == key)
        assert coco.score(case.truth, part).by_class[name] == whole[name]
    assert whole["class 12"] == {"box/AP": None, "mask/AP": None}  # it has no region


def test_perfect_predictions_are_100():
    regions = true_regions([(1, 3, [5, 5, 20, 20]), (1, 6, [5, 5, 8, 8]), (2, 3, [0, 0, 50, 50])])
    truth = truth_of(regions, federation=federation(), frequencies=("r", "c", "f", "f"))
    for scores in (coco.score(truth, perfect(regions)), lvis.score(truth, perfect(regions))):
        figures = {key: value for key, value in scores.figures.items() if "/APl" not in key}
        assert {value for key, value in figures.items() if "/AP" in key} <= {None, 100.0}
        assert figures["box/AP"] == figures["mask/AP"] == 100.0
    assert lvis.score(truth, perfect(regions)).figures["box/APf"] is None


TRUE = [(1, 3, [0, 0, 20, 20])]
LVIS_LISTS = federation(negative=[(1, 6)], not_exhaustive=[(1, 3)])


@pytest.mark.parametrize(
    ("wrong", "ap"),
    [
        pytest.param((1, 9, [40, 40, 10, 10], 0.9), 100.0, id="of a class that is not judged"),
        pytest.param((1, 3, [40, 40, 10, 10], 0.9), 100.0, id="of one that is not exhaustive"),
        pytest.param((1, 6, [0, 0, 20, 20], 0.9), 100.0, id="of an absent one without a region"),
    ],
)
def test_lvis_detections_that_are_not_wrong(wrong, ap):
    truth = truth_of(true_regions(TRUE), federation=LVIS_LISTS)
    found = found_regions([wrong, (1, 3, [0, 0, 20, 20], 0.5)])
    assert lvis.score(truth, found).figures["box/AP"] == ap


def test_lvis_detections_of_absent_classes_are_wrong():
    regions = true_regions([*TRUE, (2, 6, [0, 0, 20, 20])])
    found = found_regions(
        [(1, 6, [0, 0, 9, 9], 0.9), (1, 3, [0, 0, 20, 20], 0.5), (2, 6, [0, 0, 20, 20], 0.5)]
    )
    unlisted = truth_of(regions, federation=federation())
    assert lvis.score(unlisted, found).figures["box/AP"] == 100.0
    # Verified to be absent in image 1: class 6 has one wrong before one right, precision 1/2.
    listed = truth_of(regions, federation=LVIS_LISTS)
    assert lvis.score(listed, found).figures["box/AP"] == pytest.approx(75.0)


def test_only_the_best_detections_of_a_lvis_image_count():
    truth = truth_of(true_regions(TRUE), federation=LVIS_LISTS)
    # The one that is right has the lowest score, after ten of a class that is not judged.
    others = [(1, 9, [40, 40, 10, 10], 0.9)] * 10
    found = found_regions([(1, 3, [0, 0, 20, 20], 0.5), *others])
    assert lvis.score(truth, found, detections=11).figures["box/AP"] == 100.0
    assert lvis.score(truth, found, detections=10).figures["box/AP"] == 0.0


def test_what_is_not_of_the_task():
    truth = truth_of(true_regions(TRUE), classes=[3])
    # Stuff and other classes are left out, as for the things of ADE20K.
    found = found_regions([(1, 77, [0, 0, 9, 9], 0.9), (1, 3, [0, 0, 20, 20], 0.5)])
    assert coco.score(truth, found).figures["mask/AP"] == 100.0
    with pytest.raises(ValueError, match="image 5 of the detections"):
        coco.score(truth, found_regions([(5, 3, [0, 0, 9, 9], 0.9)]))
    with pytest.raises(ValueError, match="masks are scored where"):
        coco.score(truth, dataclasses.replace(found, masks=None))
    assert coco.score(truth, dataclasses.replace(found, masks=None), ["box"]).figures["box/AP"]
    with pytest.raises(ValueError, match="LVIS scores need the federation"):
        lvis.score(truth, found)
    assert coco.score(truth, found.select(np.zeros(2, bool))).figures["box/AP"] == 0.0


def test_a_mask_is_as_large_as_its_pixels():
    # A true region that is large by its file, and a wrong mask of 100 pixels in a large box.
    regions = true_regions([(1, 3, [0, 0, 40, 40]), (1, 3, [41, 41, 8, 8])])
    found = found_regions([(1, 3, [50, 10, 10, 10], 0.9), (1, 3, [0, 0, 40, 40], 0.5)])
    found = dataclasses.replace(found, xywh=np.array([[41, 0, 39, 40], [0, 0, 40, 40]], "f4"))
    figures = coco.score(truth_of(regions), found).figures
    assert figures["mask/APm"] == 100.0  # the wrong mask is small
    assert figures["box/APm"] == pytest.approx(50.0)  # and its box is not
