"""Average precision of federated annotations: each image is annotated for some classes only.

On an image, a class is judged if it has a region there or is verified to be absent. Detections of
other classes are neither right nor wrong. Where a class is present but not every instance of it
was annotated, a detection that matches none is not wrong (LVIS, arXiv 1908.03195, section 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ape_stream.evaluation.benchmarks.scoring.coco import class_ap, precision_figures
from ape_stream.evaluation.benchmarks.scoring.engine import Kind, precision_of
from ape_stream.evaluation.benchmarks.scoring.pairs import best_of_images, in_pairs, pairs_of
from ape_stream.evaluation.benchmarks.scoring.records import Scores, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_stream.evaluation.benchmarks.scoring.records import (
        FoundRegions,
        RegionTruth,
    )

__all__ = ["DETECTIONS", "judged", "score"]

DETECTIONS = 300
"""Detections of an image that count, over all classes."""


def judged(truth: RegionTruth, found: FoundRegions, detections: int = DETECTIONS) -> FoundRegions:
    """What of the detections counts: the best of each image, of classes that are judged there.

    Of 300 detections of an image most are of classes that nobody looked for. Whole images may be
    given in any portions, so a shard is reduced when it is read, and `score` of all that is left
    gives the same figures.
    """
    if truth.federation is None:
        raise ValueError("LVIS scores need the federation: which classes each image was judged for")
    best = best_of_images(found, detections)
    listed = np.concatenate([pairs_of(truth.regions), truth.federation.negative])
    return best.select(in_pairs(pairs_of(best), listed))


def score(
    truth: RegionTruth,
    found: FoundRegions,
    kinds: Sequence[Kind] = ("box", "mask"),
    detections: int = DETECTIONS,
) -> Scores:
    """The figures of LVIS: AP, AP50, AP75, by size, by frequency (APr, APc, APf), and recalls.

    Args:
        truth: The annotated regions with their federation; APr, APc and APf need frequencies.
        found: All detections, or what `judged` left of them.
        kinds: What is scored.
        detections: How many of an image count, over all classes.

    Raises:
        ValueError: no federation is given, masks are missing, or an image is not the truth's.
        PluginError: faster-coco-eval is not installed.
    """
    found = judged(truth, found, detections)
    assert truth.federation is not None  # noqa: S101 (`judged` checked it)
    exempt = in_pairs(pairs_of(found), truth.federation.not_exhaustive)
    figures: dict[str, float | None] = {}
    by_class: dict[str, dict[str, float | None]] = {name: {} for name in truth.classes.names}
    for kind in kinds:
        result = precision_of(truth, found, kind, (detections,), exempt)
        figures |= precision_figures(result, kind)
        frequencies = np.array(truth.classes.frequencies or ())
        for group in "rcf" if len(frequencies) else "":
            ap = result.ap(classes=frequencies == group)
            figures[f"{kind}/AP{group}"] = percent(ap)
        figures[f"{kind}/AR@{detections}"] = percent(result.ar())
        for area in ("s", "m", "l"):
            figures[f"{kind}/AR{area}@{detections}"] = percent(result.ar(area=area))
        class_ap(by_class, truth.classes, result, kind)
    return Scores(figures, by_class)
