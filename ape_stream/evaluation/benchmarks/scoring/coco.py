"""Average precision and recall as COCO defines them, for every benchmark that uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ape_stream.evaluation.benchmarks.scoring.engine import RANGES, Kind, Precision, precision_of
from ape_stream.evaluation.benchmarks.scoring.records import Scores, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_stream.evaluation.benchmarks.scoring.records import (
        Classes,
        FoundRegions,
        RegionTruth,
    )

__all__ = ["class_ap", "precision_figures", "score"]


def score(
    truth: RegionTruth,
    found: FoundRegions,
    kinds: Sequence[Kind] = ("box", "mask"),
    detections: int = 100,
) -> Scores:
    """AP, AP50, AP75, APs, APm, APl and the average recalls, of boxes and of masks.

    Args:
        truth: The annotated regions; crowds may be missed, and what lies on them is not judged.
        found: The detections; those of other classes are left out.
        kinds: What is scored.
        detections: How many of an image and class count, the best ones; COCO takes 100.

    Raises:
        ValueError: masks are asked for and some have none, or an image is not the truth's.
        PluginError: faster-coco-eval is not installed.
    """
    figures: dict[str, float | None] = {}
    by_class: dict[str, dict[str, float | None]] = {name: {} for name in truth.classes.names}
    for kind in kinds:
        judged = precision_of(truth, found, kind, (1, 10, detections))
        figures |= precision_figures(judged, kind)
        recalls = {1: judged.ar(0), 10: judged.ar(1), detections: judged.ar()}
        figures |= {f"{kind}/AR@{count}": percent(value) for count, value in recalls.items()}
        for area in ("s", "m", "l"):
            figures[f"{kind}/AR{area}"] = percent(judged.ar(area=area))
        class_ap(by_class, truth.classes, judged, kind)
    return Scores(figures, by_class)


def precision_figures(judged: Precision, kind: Kind) -> dict[str, float | None]:
    """AP, AP50, AP75 and AP of small, medium and large regions."""
    ranges = {f"AP{letter}": judged.ap(area=letter) for letter in RANGES if letter}
    figures = {"AP": judged.ap(), "AP50": judged.ap(0.5), "AP75": judged.ap(0.75)} | ranges
    return {f"{kind}/{name}": percent(value) for name, value in figures.items()}


def class_ap(
    by_class: dict[str, dict[str, float | None]], classes: Classes, judged: Precision, kind: Kind
) -> None:
    """Add the AP of each class to a table."""
    for k, name in enumerate(classes.names):
        by_class[name][f"{kind}/AP"] = percent(judged.ap(classes=np.array([k])))
