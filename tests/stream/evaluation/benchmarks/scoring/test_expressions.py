"""RefCOCO, PhraseCut and Flickr30k, and the means of suites: cases worked by hand."""

import dataclasses

import numpy as np
import pytest
from made_up import found_regions, perfect, true_regions, truth_of

from ape_stream.evaluation.benchmarks.scoring import phrasecut, phrases, referring, suites
from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, Scores

# Three expressions: one image record each, all of class 1.
TRUE = true_regions([(k, 1, [0, 0, 20, 10]) for k in (1, 2, 3)])
TRUTH = truth_of(TRUE, [1])


def test_an_iou_on_the_threshold_is_not_above_it():
    # IoU 1/2 by half the box; the one with the highest score is the answer.
    found = found_regions([(1, 1, [0, 0, 10, 10], 0.9), (1, 1, [0, 0, 20, 10], 0.8)])
    truth = truth_of(TRUE.select(np.arange(1)), [1])
    assert referring.score(truth, found).figures["box/P@0.5"] == 0.0
    figures = referring.score(truth, found, at_least=True).figures
    assert (figures["box/P@0.5"], figures["box/P@0.6"]) == (100.0, 0.0)


def test_expressions_without_an_answer_count():
    # IoU 1, IoU 3/4, none. Pixels: 200 of 200, 150 of 200, 0 of 200.
    found = found_regions([(1, 1, [0, 0, 20, 10], 0.9), (2, 1, [0, 0, 15, 10], 0.1)])
    scores = referring.score(TRUTH, found)
    assert scores.figures == pytest.approx(
        {
            "box/P@0.5": 200 / 3,
            "box/P@0.6": 200 / 3,
            "box/P@0.7": 200 / 3,
            "box/P@0.8": 100 / 3,
            "box/P@0.9": 100 / 3,
            "mask/oIoU": 100 * 350 / 600,
            "mask/mIoU": 100 * 1.75 / 3,
        }
    )
    assert scores.notes == ("1 expressions without a prediction were judged as IoU 0",)


def test_one_expression_has_one_region():
    twice = true_regions([(1, 1, [0, 0, 20, 10]), (1, 1, [0, 0, 9, 9])])
    with pytest.raises(ValueError, match="has 2 true regions: one is needed"):
        referring.score(truth_of(twice, [1]), perfect(twice))
    found = dataclasses.replace(perfect(TRUE), masks=None)
    assert referring.score(TRUTH, found, ["box"]).figures["box/P@0.9"] == 100.0
    with pytest.raises(ValueError, match="masks are scored where"):
        referring.score(TRUTH, found)


PHRASES = true_regions(
    [(1, 1, [0, 0, 10, 10]), (1, 1, [20, 0, 10, 10]), (1, 2, [0, 20, 10, 10]), (2, 1, [0, 0, 9, 9])]
)
PHRASE_TRUTH = truth_of(PHRASES, [1, 2])


def test_a_phrase_is_the_union_of_its_regions():
    # 1: half of both boxes and 100 pixels besides: 100 of 300. 2: 90 of 100. 3: nothing.
    found = found_regions(
        [
            (1, 1, [0, 0, 10, 5], 0.9),
            (1, 1, [20, 5, 10, 5], 0.2),
            (1, 1, [60, 40, 10, 10], 0.5),
            (1, 2, [0, 20, 9, 10], 0.9),
        ]
    )
    scores = phrasecut.score(PHRASE_TRUTH, found)
    assert scores.figures == pytest.approx(
        {
            "mask/mIoU": 100 * (1 / 3 + 0.9) / 3,
            "mask/cIoU": 100 * (100 + 90) / (300 + 100 + 81),
            "mask/P@0.5": 100 / 3,
            "mask/P@0.7": 100 / 3,
            "mask/P@0.9": 0.0,
        }
    )
    assert scores.notes == ("1 phrases without a prediction were judged as IoU 0",)
    with pytest.raises(ValueError, match="masks are scored where"):
        phrasecut.score(PHRASE_TRUTH, dataclasses.replace(found, masks=None))


def test_recall_looks_at_the_best_boxes():
    wrong = [(1, 1, [60, 40, 10, 10], 0.9 - k / 100) for k in range(4)]
    # Fifth box of the first phrase; second of the second, on the threshold; none for the third.
    found = found_regions(
        [
            (1, 1, [20, 0, 10, 10], 0.5),
            *wrong,
            (1, 2, [60, 40, 5, 5], 0.9),
            (1, 2, [0, 20, 5, 10], 0.8),
        ]
    )
    scores = phrases.score(PHRASE_TRUTH, found)
    assert scores.figures == pytest.approx(
        {"box/R@1": 0.0, "box/R@5": 200 / 3, "box/R@10": 200 / 3}
    )
    assert scores.notes == ("1 phrases without a prediction were judged as not found",)
    # Merged, the first phrase is the box of 30 by 10 around both.
    assert phrases.score(PHRASE_TRUTH, found, "merged").figures["box/R@10"] == pytest.approx(
        100 / 3
    )
    around = found_regions([(1, 1, [0, 0, 30, 10], 0.5)])
    assert phrases.score(PHRASE_TRUTH, around, "merged").figures["box/R@1"] == pytest.approx(
        100 / 3
    )
    assert phrases.score(PHRASE_TRUTH, around).figures["box/R@10"] == 0.0


def test_perfect_predictions_are_100_in_any_order():
    for truth, score in (
        (TRUTH, referring.score),
        (PHRASE_TRUTH, phrasecut.score),
        (PHRASE_TRUTH, phrases.score),
    ):
        found = perfect(truth.regions)
        parts = [found.select(found.image_ids == key) for key in (3, 2, 1)]
        figures = score(truth, FoundRegions.join(parts)).figures
        assert set(figures.values()) == {100.0}


def test_suites_name_the_sets_that_have_no_figure():
    sets = {
        name: Scores({"box/AP": value})
        for name, value in {"a": 10.0, "b": 20.0, "c": None, "d": 60.0}.items()
    }
    sets["d"] = dataclasses.replace(sets["d"], notes=("careful",))
    scores = suites.summarise(sets, "box/AP")
    assert scores.figures == {"box/AP mean": 30.0, "box/AP median": 20.0}
    assert scores.by_class["c"] == {"box/AP": None}
    assert scores.notes == ("d: careful", "without box/AP, left out of 4 sets: c")
    assert set(suites.summarise({"c": sets["c"]}, "box/AP").figures.values()) == {None}
