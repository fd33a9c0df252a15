"""Panoptic quality and mean IoU: cases worked by hand."""

import numpy as np
import pytest

from ape_stream.evaluation.benchmarks.scoring import semantic
from ape_stream.evaluation.benchmarks.scoring.panoptic import PanopticScorer, Segment
from ape_stream.evaluation.benchmarks.scoring.records import Classes
from ape_stream.evaluation.semantic import Confusion

CAR, SKY = 7, 9
NAMES = Classes(np.array([CAR, SKY]), ("car", "sky"))


def panoptic():
    return PanopticScorer(NAMES, things=np.array([True, False]))


def strip(*runs):
    """One row of pixels: (segment id, how many) each."""
    return np.concatenate([np.full(count, key) for key, count in runs])[None]


def judge(truth, true, found, predicted):
    scorer = panoptic()
    scorer.add(truth, true, found, predicted)
    return scorer


def test_quality_is_iou_over_what_was_right_wrong_and_missed():
    # A car of 10 pixels of which 8 are found, nothing else: IoU 0.8.
    scorer = judge(strip((1, 10)), [Segment(1, CAR)], strip((5, 8), (0, 2)), [Segment(5, CAR)])
    assert scorer.scores().figures["PQ"] == pytest.approx(80.0)
    # A second image: a sky that is not found, a car that is not there.
    scorer.add(strip((1, 4), (2, 6)), [Segment(1, SKY), Segment(2, CAR)], strip((5, 10)), CARS[:1])
    scores = scorer.scores()
    assert scorer.counts.tolist() == [[2, 0, 0], [0, 0, 1]]
    assert scores.by_class["car"] == pytest.approx({"PQ": 70.0, "SQ": 70.0, "RQ": 100.0})
    assert scores.by_class["sky"] == {"PQ": 0.0, "SQ": 0.0, "RQ": 0.0}
    assert scores.figures["PQ"] == pytest.approx(35.0)
    assert (scores.figures["PQ_th"], scores.figures["PQ_st"]) == (pytest.approx(70.0), 0.0)


CARS = [Segment(5, CAR), Segment(6, CAR)]


def test_void_pixels_belong_to_no_union():
    # The prediction covers the car and four void pixels: IoU 1. The second lies in void: no error.
    truth, found = strip((1, 6), (0, 8)), strip((5, 10), (6, 4))
    assert judge(truth, [Segment(1, CAR)], found, CARS).scores().figures["PQ"] == 100.0


def test_a_segment_half_of_which_is_void_is_wrong():
    truth, found = strip((1, 6), (0, 2), (2, 2)), strip((5, 6), (6, 4))
    scorer = judge(truth, [Segment(1, CAR), Segment(2, SKY)], found, CARS)
    assert scorer.counts.tolist() == [[1, 1, 0], [0, 0, 1]]


def test_crowds_need_not_be_found_and_take_what_lies_on_them():
    truth = strip((1, 6), (2, 6), (3, 6))
    true = [Segment(1, CAR), Segment(2, CAR, crowd=True), Segment(3, SKY, crowd=True)]
    # On the crowd of its own class: no error. On that of another class: wrong.
    scorer = judge(truth, true, strip((5, 6), (6, 6), (0, 6)), CARS)
    assert scorer.counts.tolist() == [[1, 0, 0], [0, 0, 0]]
    scorer = judge(truth, true, strip((5, 6), (0, 6), (6, 6)), CARS)
    assert scorer.counts.tolist() == [[1, 1, 0], [0, 0, 0]]


def test_a_crowd_is_matched_by_nothing_and_the_last_one_of_a_class_counts():
    truth = strip((1, 6), (2, 6))
    true = [Segment(1, CAR, crowd=True), Segment(2, CAR, crowd=True)]
    scorer = judge(truth, true, strip((5, 6), (6, 6)), CARS)
    assert scorer.counts.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert scorer.scores().figures["PQ_st"] is None


def test_half_an_overlap_is_no_match():
    scorer = judge(strip((1, 8)), [Segment(1, CAR)], strip((5, 4), (0, 4)), CARS[:1])
    assert scorer.counts.tolist() == [[0, 1, 1], [0, 0, 0]]
    # The area of the file counts, not that of the map.
    scorer = judge(strip((1, 8)), [Segment(1, CAR, area=7)], strip((5, 4), (0, 4)), CARS[:1])
    assert scorer.counts.tolist() == [[1, 0, 0], [0, 0, 0]]
    assert scorer.iou[0] == pytest.approx(4 / 7)


def test_images_without_a_prediction_are_void_and_reported():
    scorer = judge(strip((1, 8), (2, 2)), [Segment(1, CAR), Segment(2, SKY)], None, [])
    assert scorer.counts.tolist() == [[0, 0, 1], [0, 0, 1]]
    assert scorer.scores().notes == ("1 images without a prediction were judged as void",)


def test_panoptic_shards_add_up_and_perfect_predictions_are_100():
    rng = np.random.default_rng(0)
    whole, parts = panoptic(), [panoptic(), panoptic()]
    perfect = panoptic()
    for k in range(10):
        truth, found = (rng.integers(0, 4, (6, 8)).repeat(3, 1) for _ in range(2))
        true = [Segment(key, (CAR, SKY)[key % 2]) for key in np.unique(truth).tolist() if key]
        other = [Segment(key, (CAR, SKY)[key % 2]) for key in np.unique(found).tolist() if key]
        for scorer in (whole, parts[k % 2]):
            scorer.add(truth, true, found, other)
        perfect.add(truth, true, truth, true)
    parts[1].merge(parts[0])
    assert (parts[1].counts == whole.counts).all()
    assert parts[1].iou == pytest.approx(whole.iou)
    assert set(perfect.scores().figures.values()) == {100.0}


def test_predicted_segments_that_are_not_those_of_their_map():
    for found, predicted in ((strip((5, 8)), CARS), (strip((5, 4), (8, 4)), CARS[:1])):
        with pytest.raises(ValueError, match="in the map or in the list, not in both"):
            judge(strip((1, 8)), [Segment(1, CAR)], found, predicted)
    with pytest.raises(ValueError, match="class 3 of a predicted segment"):
        judge(strip((1, 8)), [Segment(1, CAR)], strip((5, 8)), [Segment(5, 3)])
    with pytest.raises(ValueError, match="a panoptic map is"):
        judge(strip((1, 8)), [Segment(1, CAR)], strip((5, 7)), [Segment(5, CAR)])


# Classes 0, 1, 2 and 9, which is not scored; maps have k + 1 for class k and 0 for nothing.
TRUTH = np.array([[0, 0, 0, 0], [1, 1, 9, 9]])
FOUND = np.array([[1, 1, 1, 3], [2, 0, 3, 3]])
LABELS = ["sky", "road", "boat"]


def test_mean_iou_is_over_the_classes_of_the_truth():
    confusion = Confusion(3)
    confusion.add(TRUTH, FOUND)
    scores = semantic.score(confusion, LABELS)
    # Sky: 3 of 4, road: 1 of 2. Boat is found and not there: it has no IoU.
    assert scores.figures == pytest.approx(
        {
            "mIoU": 100 * (3 / 4 + 1 / 2) / 2,
            "fwIoU": 100 * (3 / 4 * 4 + 1 / 2 * 2) / 6,
            "mACC": 100 * (3 / 4 + 1 / 2) / 2,
            "pACC": 100 * 4 / 6,
        }
    )
    assert scores.by_class["boat"] == {"IoU": None, "ACC": None}
    # One pixel of sky given to road lowers both.
    confusion.add(np.array([[0]]), np.array([[2]]))
    assert semantic.score(confusion, LABELS).by_class["road"]["IoU"] == pytest.approx(100 / 3)


def test_semantic_shards_add_up_and_perfect_predictions_are_100():
    whole, part = Confusion(3), Confusion(3)
    whole.add(TRUTH, FOUND)
    part.add(TRUTH[:1], FOUND[:1])
    rest = Confusion(3)
    rest.add(TRUTH[1:], FOUND[1:])
    part.merge(rest)
    assert (part.counts == whole.counts).all()
    perfect = Confusion(3)
    perfect.add(TRUTH, np.where(TRUTH == 9, 0, TRUTH + 1))
    assert set(semantic.score(perfect, LABELS).figures.values()) == {100.0}
    assert set(semantic.score(Confusion(3), LABELS, missing=2).figures.values()) == {None}
    assert semantic.score(perfect, LABELS, missing=2).notes == (
        "2 images without a prediction were judged as nothing found",
    )


def test_maps_that_do_not_fit():
    for found in (FOUND[:, :2], FOUND + 1):
        with pytest.raises(ValueError, match="map of values up to 3 is needed"):
            Confusion(3).add(TRUTH, found)
