"""Recall of phrases, as for Flickr30k Entities: is one of the first k boxes on the phrase?

A phrase is a pair of an image id and a class id with one true box or several. Two protocols are
in use: a hit on any of the boxes counts, or they are merged to the box around all of them
(arXiv 2104.12763, appendix on Flickr30k).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ape_stream.evaluation.benchmarks.scoring.overlap import box_iou
from ape_stream.evaluation.benchmarks.scoring.pairs import by_pair
from ape_stream.evaluation.benchmarks.scoring.records import Scores, mean_percent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, RegionTruth

__all__ = ["IOU", "TOP", "score"]

IOU = 0.5
"""From this overlap on a box is a hit."""
TOP = (1, 5, 10)
"""How many of the best boxes are looked at."""


def score(
    truth: RegionTruth, found: FoundRegions, protocol: Literal["any", "merged"] = "any"
) -> Scores:
    """Recall at 1, 5 and 10, at IoU 0.5.

    Args:
        truth: The true boxes of each pair of an image and a class.
        found: The detections for it; those of other pairs are left out.
        protocol: A hit on any of the true boxes counts, or on the box around all of them.
    """
    found_rows, first, missing = by_pair(found), [], 0
    for pair, rows in by_pair(truth.regions).items():
        candidates = found_rows.get(pair, np.zeros(0, np.intp))
        missing += not len(candidates)
        best = candidates[np.argsort(-found.scores[candidates], kind="stable")][: TOP[-1]]
        boxes = truth.regions.xywh[rows]
        if protocol == "merged":
            boxes = _around(boxes)
        hits = (box_iou(found.xywh[best], boxes, np.zeros(len(boxes), np.bool_)) >= IOU).any(1)
        first.append(int(hits.argmax()) if hits.any() else TOP[-1])
    rank = np.array(first)
    figures = {f"box/R@{count}": mean_percent(rank < count) for count in TOP}
    note = f"{missing} phrases without a prediction were judged as not found"
    return Scores(figures, notes=(note,) if missing else ())


def _around(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(1, 4) the box around all of (N, 4)."""
    corner = boxes[:, :2].min(0)
    far = (boxes[:, :2] + boxes[:, 2:]).max(0)
    return np.concatenate([corner, far - corner])[None]
