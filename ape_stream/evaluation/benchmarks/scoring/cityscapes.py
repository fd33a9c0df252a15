"""Average precision of instances by Cityscapes' rule, which is not COCO's.

A region is matched with every detection whose IoU is above the threshold: the best is right and
the others are wrong. What lies on groups, small regions or pixels that are not evaluated is
ignored by its share of such pixels. Precision is integrated by trapezoids over the recall.
Source: cityscapesScripts 2.3.0, evalInstanceLevelSemanticLabeling.py (without distances).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from pycocotools import mask as coco

from ape_stream.evaluation.benchmarks.scoring.overlap import intersection_and_union
from ape_stream.evaluation.benchmarks.scoring.pairs import by_pair
from ape_stream.evaluation.benchmarks.scoring.records import Scores, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, RegionTruth

__all__ = ["NOT_EVALUATED", "score"]

NOT_EVALUATED: Final = 0
"""Class of the one region of an image that has all pixels which are not evaluated."""
_THRESHOLDS: Final = np.arange(0.5, 1.0, 0.05)
_LEAST_PIXELS: Final = 100
"""Smaller regions need not be found."""


@dataclass(frozen=True, slots=True, eq=False)
class _Overlaps:
    """T annotated regions and N detections of one class in one image."""

    wanted: NDArray[np.bool_]
    """(T,) neither groups nor small."""
    iou: NDArray[np.float64]
    """(T, N)."""
    ignored: NDArray[np.float64]
    """(N,) part of each detection on groups, small regions and pixels that are not evaluated; a
    region that is both a group and small counts twice."""
    scores: NDArray[np.float64]
    """(N,)."""


def score(truth: RegionTruth, found: FoundRegions) -> Scores:
    """AP over the IoU .5, .55 ... .95, and AP50, of masks: the means over the classes that occur.

    Args:
        truth: The annotated regions with masks; groups need not be found. A region of the class
            `NOT_EVALUATED` has the pixels of its image that are not evaluated.
        found: The detections with masks; those of other classes are left out.

    Raises:
        ValueError: some have no masks, or masks are of images of different sizes.
    """
    if truth.regions.masks is None or found.masks is None:
        raise ValueError("masks are scored where annotations and detections have them")
    true_rows, found_rows = by_pair(truth.regions), by_pair(found)
    none = np.zeros(0, np.intp)
    by_class = {}
    for class_id, name in zip(truth.classes.ids.tolist(), truth.classes.names, strict=True):
        images = {pair[0] for pair in (*true_rows, *found_rows) if pair[1] == class_id}
        overlaps = [
            _overlaps(
                truth,
                found,
                true_rows.get((image, class_id), none),
                found_rows.get((image, class_id), none),
                true_rows.get((image, NOT_EVALUATED), none),
            )
            for image in sorted(images)
        ]
        by_class[name] = np.array([_precision_of(overlaps, iou) for iou in _THRESHOLDS])
    values = np.array(list(by_class.values()))
    return Scores(
        {"mask/AP": _mean(values), "mask/AP50": _mean(values[:, :1])},
        {n: {"mask/AP": _mean(v), "mask/AP50": _mean(v[:1])} for n, v in by_class.items()},
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return percent(float(known.mean())) if known.size else None


def _overlaps(
    truth: RegionTruth,
    found: FoundRegions,
    true: NDArray[np.intp],
    own: NDArray[np.intp],
    void: NDArray[np.intp],
) -> _Overlaps:
    true_masks, found_masks = truth.regions.masks, found.masks
    assert true_masks is not None  # noqa: S101 (`score` has checked both)
    assert found_masks is not None  # noqa: S101
    detected = [found_masks[k] for k in own.tolist()]
    pixels = np.array([int(coco.area(mask)) for mask in detected], np.float64)
    rows = [*true.tolist(), *void.tolist()]
    pairs = np.array(
        [[intersection_and_union(true_masks[k], mask) for mask in detected] for k in rows], float
    ).reshape(len(rows), len(own), 2)
    inside, iou = pairs[: len(true), :, 0], pairs[: len(true), :, 0] / pairs[: len(true), :, 1]
    groups = truth.regions.groups[true]
    small = np.array([int(coco.area(true_masks[k])) < _LEAST_PIXELS for k in true.tolist()], bool)
    ignored = inside[groups].sum(0) + inside[small].sum(0) + pairs[len(true) :, :, 0].sum(0)
    with np.errstate(invalid="ignore"):  # an empty detection has no part: it is left out
        part = ignored / pixels
    kept = pixels > 0
    return _Overlaps(
        ~groups & ~small, iou[:, kept], part[kept], found.scores[own[kept]].astype(np.float64)
    )


def _precision_of(images: Sequence[_Overlaps], threshold: float) -> float:
    """Average precision of one class, 0..1; NaN where no image has a region to find."""
    if not any(one.wanted.any() for one in images):
        return float("nan")
    right, wrong, missed = [], [], 0
    for one in images:
        hits = one.iou > threshold  # (T, N)
        for row in hits[one.wanted]:
            own = np.sort(one.scores[row])
            missed += not len(own)
            right += own[-1:].tolist()
            wrong += own[:-1].tolist()
        wrong += one.scores[~hits.any(0) & (one.ignored <= threshold)].tolist()
    return _area(np.array(right), np.array(wrong), missed)


def _area(right: NDArray[np.float64], wrong: NDArray[np.float64], missed: int) -> float:
    """Area below precision over recall, by trapezoids, from the scores of what was judged."""
    levels = np.unique(np.concatenate([right, wrong]))  # rising: recall falls
    true = (right[None] >= levels[:, None]).sum(1)  # (L,)
    false = (wrong[None] >= levels[:, None]).sum(1)
    # An artificial last point: nothing is found, and all of it is right.
    precision = np.append(true / (true + false), 1.0)
    recall = np.append(true / (len(right) + missed), 0.0)
    widths = (np.append(recall[:1], recall[:-1]) - np.append(recall[1:], 0.0)) / 2
    return float(precision @ widths)
