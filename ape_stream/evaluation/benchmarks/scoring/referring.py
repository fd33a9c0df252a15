"""Referring expressions, one region each: RefCOCO, RefCOCO+ and RefCOCOg.

An expression is a pair of an image id and a class id that has exactly one true region; the files
of SeqTR, which the paper uses, have one image record for each expression. The detection with the
highest score is the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ape_stream.evaluation.benchmarks.scoring.overlap import box_iou, intersection_and_union
from ape_stream.evaluation.benchmarks.scoring.pairs import by_pair
from ape_stream.evaluation.benchmarks.scoring.records import (
    MaskCodes,
    Scores,
    mean_percent,
    percent,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_stream.evaluation.benchmarks.scoring.engine import Kind
    from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, RegionTruth

__all__ = ["THRESHOLDS", "score"]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU of boxes from which an answer is right."""

Answers = list[tuple[int, int | None]]
"""Positions of the true region of each expression, and of what was found for it."""


def score(
    truth: RegionTruth,
    found: FoundRegions,
    kinds: Sequence[Kind] = ("box", "mask"),
    *,
    at_least: bool = False,
) -> Scores:
    """P@0.5 to P@0.9 of boxes, overall IoU (oIoU) and mean IoU (mIoU) of masks.

    An expression without a detection is an answer that overlaps nothing: IoU 0, and the true mask
    is part of the union.

    Args:
        truth: One region for each pair of an image and a class.
        found: Any number of detections of each pair; those of other pairs are left out.
        kinds: What is scored.
        at_least: Take an IoU on the threshold for right, as many papers do. Otherwise it must be
            above, as in the evaluation code of the paper.

    Raises:
        ValueError: an expression has several true regions, or masks are missing.
    """
    answers = _answers(truth, found)
    missing = sum(answer is None for _, answer in answers)
    figures: dict[str, float | None] = {}
    if "box" in kinds:
        iou = np.array([_box_iou(truth, found, *one) for one in answers])
        for threshold in THRESHOLDS:
            right = iou >= threshold if at_least else iou > threshold
            figures[f"box/P@{threshold}"] = mean_percent(right)
    if "mask" in kinds:
        figures |= _mask_figures(truth.regions.masks, found.masks, answers)
    note = f"{missing} expressions without a prediction were judged as IoU 0"
    return Scores(figures, notes=(note,) if missing else ())


def _answers(truth: RegionTruth, found: FoundRegions) -> Answers:
    found_rows = by_pair(found)
    answers: Answers = []
    for pair, rows in by_pair(truth.regions).items():
        if len(rows) > 1:
            raise ValueError(f"expression {pair} has {len(rows)} true regions: one is needed")
        candidates = found_rows.get(pair)
        best = None if candidates is None else int(candidates[found.scores[candidates].argmax()])
        answers.append((int(rows[0]), best))
    return answers


def _box_iou(truth: RegionTruth, found: FoundRegions, true: int, answer: int | None) -> float:
    if answer is None:
        return 0.0
    regions = truth.regions
    return float(box_iou(found.xywh[[answer]], regions.xywh[[true]], regions.groups[[true]])[0, 0])


def _mask_figures(
    true: MaskCodes | None, found: MaskCodes | None, answers: Answers
) -> dict[str, float | None]:
    if true is None or found is None:
        raise ValueError("masks are scored where annotations and detections have them")
    pixels = [
        intersection_and_union(true[k], None if answer is None else found[answer])
        for k, answer in answers
    ]
    both, either = np.array(pixels, np.int64).reshape(-1, 2).T
    iou = np.divide(both, either, out=np.zeros(len(both)), where=either > 0)
    overall = both.sum() / either.sum() if either.sum() else float("nan")
    return {"mask/oIoU": percent(overall), "mask/mIoU": mean_percent(iou)}
