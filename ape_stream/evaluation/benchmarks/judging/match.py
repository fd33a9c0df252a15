"""Which detections are right, which are false alarms, and which true regions are missed.

Boxes of one image and class are matched greedily, the highest score first, as COCO does at one IoU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ape_stream.evaluation.benchmarks.scoring.overlap import box_iou
from ape_stream.evaluation.benchmarks.scoring.pairs import by_pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, RegionTruth

__all__ = ["Matches", "best_threshold", "match"]

_RIGHT, _ALARM, _NOT_JUDGED = range(3)
_ON_NOTHING: Final = -1
_ON_CROWD: Final = -2
"""What a detection hits where it hits no labelled region."""


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """How N detections and M true regions fit together, at any score."""

    right: NDArray[np.bool_]
    """(N,) detections of a true region that no better one has."""
    alarm: NDArray[np.bool_]
    """(N,) detections of nothing. The others lie on crowds, or nobody knows what they are."""
    matched_at: NDArray[np.float32]
    """(M,) score of the detection of each true region; -inf where there is none at any score."""
    wanted: NDArray[np.bool_]
    """(M,) which true regions must be found; crowds need not."""


def match(truth: RegionTruth, found: FoundRegions, iou: float) -> Matches:
    """Match detections with true regions.

    Args:
        truth: The annotated regions. With a federation (LVIS, Open Images), a detection of a class
            that nobody looked for in its image is not judged.
        found: The detections.
        iou: Least IoU of two boxes, 0..1.
    """
    regions = truth.regions
    outcome = np.full(len(found), _NOT_JUDGED, np.int8)
    matched_at = np.full(len(regions), -np.inf, np.float32)
    true_rows, nothing = by_pair(regions), np.zeros(0, np.intp)
    known, open_ended = _known_pairs(truth)
    for pair, unsorted in by_pair(found).items():
        rows = unsorted[np.argsort(-found.scores[unsorted], kind="stable")]
        own = true_rows.get(pair, nothing)
        if known is not None and not len(own) and pair not in known:
            continue
        overlaps = box_iou(found.xywh[rows], regions.xywh[own], regions.groups[own])
        hits = _greedy(overlaps, regions.groups[own], iou)
        outcome[rows] = np.where(hits >= 0, _RIGHT, _ALARM)
        outcome[rows[hits == _ON_CROWD]] = _NOT_JUDGED
        if pair in open_ended:
            outcome[rows[hits == _ON_NOTHING]] = _NOT_JUDGED
        matched_at[own[hits[hits >= 0]]] = found.scores[rows[hits >= 0]]
    return Matches(outcome == _RIGHT, outcome == _ALARM, matched_at, ~regions.groups)


def _greedy(
    overlaps: NDArray[np.float64], groups: NDArray[np.bool_], iou: float
) -> NDArray[np.int64]:
    """(N,) true region of each detection in the order of scores, or why it has none."""
    hits = np.full(len(overlaps), _ON_NOTHING, np.int64)
    free = np.where(groups, -1.0, overlaps)
    on_crowd = np.any(overlaps[:, groups] >= iou, axis=1)
    for row, own in enumerate(free):
        best = int(own.argmax()) if len(own) else -1
        if best >= 0 and own[best] >= iou:
            hits[row] = best
            free[row + 1 :, best] = -1.0
        elif on_crowd[row]:
            hits[row] = _ON_CROWD
    return hits


def _known_pairs(
    truth: RegionTruth,
) -> tuple[set[tuple[int, int]] | None, set[tuple[int, int]]]:
    """Image and class where somebody looked, None for all; and where not all is annotated."""
    if truth.federation is None:
        return None, set()
    one = truth.federation
    known = {tuple(pair) for pair in np.concatenate([one.negative, one.positive]).tolist()}
    return known, {tuple(pair) for pair in one.not_exhaustive.tolist()}


def best_threshold(found: FoundRegions, matches: Matches) -> float:
    """The score from which detections have the highest F1 together; 1 where none is right."""
    judged = np.flatnonzero(matches.right | matches.alarm)
    order = judged[np.argsort(-found.scores[judged], kind="stable")]
    if not matches.right.any():
        return 1.0
    scores, right = found.scores[order], np.cumsum(matches.right[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + matches.wanted.sum())
    # Equal scores are kept together or not at all.
    f1[:-1][scores[:-1] == scores[1:]] = -1
    return float(scores[int(f1.argmax())])
