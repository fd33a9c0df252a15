"""PhraseCut: a phrase names any number of regions, and its answer is one mask.

A phrase is a pair of an image id and a class id. Its true mask is the union of its regions, its
answer the union of all detections for it: which of them count is chosen before, by a threshold
(arXiv 2008.01187, section 5.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ape_stream.evaluation.benchmarks.scoring.overlap import intersection_and_union, united
from ape_stream.evaluation.benchmarks.scoring.pairs import by_pair
from ape_stream.evaluation.benchmarks.scoring.records import Scores, mean_percent, percent

if TYPE_CHECKING:
    from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, RegionTruth

__all__ = ["THRESHOLDS", "score"]

THRESHOLDS = (0.5, 0.7, 0.9)
"""IoU of masks above which an answer is right."""


def score(truth: RegionTruth, found: FoundRegions) -> Scores:
    """Mean IoU over phrases, cumulative IoU over pixels (cIoU), and P@0.5, 0.7, 0.9.

    Args:
        truth: The regions of each pair of an image and a class, with masks.
        found: The detections for it, with masks; those of other pairs are left out.

    Raises:
        ValueError: masks are missing.
    """
    if truth.regions.masks is None or found.masks is None:
        raise ValueError("masks are scored where annotations and detections have them")
    found_rows, pixels, missing = by_pair(found), [], 0
    for pair, rows in by_pair(truth.regions).items():
        answer = united(found.masks, found_rows[pair]) if pair in found_rows else None
        pixels.append(intersection_and_union(united(truth.regions.masks, rows), answer))
        missing += answer is None
    both, either = np.array(pixels, np.int64).reshape(-1, 2).T
    iou = np.divide(both, either, out=np.zeros(len(both)), where=either > 0)
    cumulative = both.sum() / either.sum() if either.sum() else float("nan")
    figures = {"mask/mIoU": mean_percent(iou), "mask/cIoU": percent(cumulative)}
    figures |= {f"mask/P@{limit}": mean_percent(iou > limit) for limit in THRESHOLDS}
    note = f"{missing} phrases without a prediction were judged as IoU 0"
    return Scores(figures, notes=(note,) if missing else ())
