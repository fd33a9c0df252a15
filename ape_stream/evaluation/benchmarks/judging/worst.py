"""The images of a task where a model errs most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ape_stream.evaluation.benchmarks.judging.match import best_threshold, match
from ape_stream.evaluation.benchmarks.judging.score import found_regions, truth_of
from ape_stream.evaluation.benchmarks.prediction.payload import FoundLabels, FoundSegments
from ape_stream.evaluation.benchmarks.readers.dataset import (
    NO_CLASS,
    PanopticData,
    RegionData,
    SemanticData,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.judging.match import Matches
    from ape_stream.evaluation.benchmarks.judging.store import Stored
    from ape_stream.evaluation.benchmarks.prediction.payload import Prediction
    from ape_stream.evaluation.benchmarks.readers.dataset import Dataset, Record
    from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, RegionTruth

__all__ = ["Case", "Kind", "Mark", "Worst", "worst"]

Kind = Literal["missed", "false alarm", "right"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A box on an image."""

    kind: Kind
    """What became of it."""
    name: str
    """Its class."""
    xywh: tuple[float, float, float, float]
    """Left, top, width, height in pixels."""
    score: float | None = None
    """Of the detection; None for what was missed."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One image and its errors."""

    record: Record
    """The image."""
    errors: float
    """How wrong it is: misses and false alarms, or the share of wrong pixels."""
    marks: tuple[Mark, ...] = ()
    """The boxes, errors first."""
    wrong: NDArray[np.bool_] | None = None
    """(H, W) the wrong pixels of a task of maps."""

    def count(self, kind: Kind) -> int:
        """How many boxes of a kind."""
        return sum(mark.kind == kind for mark in self.marks)


@dataclass(frozen=True, slots=True, eq=False)
class Worst:
    """The worst images of a task."""

    task: str
    """Its name."""
    images: int
    """How many were judged."""
    cases: tuple[Case, ...]
    """The worst ones, the worst first; none without an error."""
    threshold: float | None = None
    """Score from which detections count; None for maps."""


def worst(stored: Stored, most: int, *, iou: float = 0.5, score: float | None = None) -> Worst:
    """Find the images with the most errors.

    Args:
        stored: Predictions of a task, and its truth.
        most: How many images at most.
        iou: Least IoU of the box of a detection and of its true region, 0..1.
        score: Lowest score that counts; None takes the one with the highest F1 over all images.

    Raises:
        ConfigError: predictions are damaged.
    """
    data = stored.data
    if isinstance(data, RegionData):
        return _worst_regions(data, stored, most, iou, score)
    cases = [case for part in stored.parts() for case in _map_cases(data, part, most)]
    cases.sort(key=lambda case: (-case.errors, case.record.image_id))
    return Worst(data.task.name, len(stored.records), tuple(cases[:most]))


def _worst_regions(
    data: RegionData, stored: Stored, most: int, iou: float, score: float | None
) -> Worst:
    truth = truth_of(data, stored)
    found = found_regions(stored, truth)
    matches = match(truth, found, iou)
    threshold = best_threshold(found, matches) if score is None else score
    sorted_out = _Sorted(data, truth, found, matches, threshold)
    errors = sorted_out.errors(np.array([one.image_id for one in stored.records], np.int64))
    order = np.argsort(-errors, kind="stable")[:most]
    cases = [
        Case(stored.records[k], int(errors[k]), sorted_out.marks(stored.records[k].image_id))
        for k in order[errors[order] > 0].tolist()
    ]
    return Worst(data.task.name, len(stored.records), tuple(cases), threshold)


class _Sorted:
    """Detections and true regions, sorted into right and wrong at a threshold."""

    def __init__(
        self,
        data: Dataset,
        truth: RegionTruth,
        found: FoundRegions,
        matches: Matches,
        threshold: float,
    ) -> None:
        kept = found.scores >= np.float32(threshold)
        self._found, self._regions = found, truth.regions
        self._rows: dict[Kind, NDArray[np.intp]] = {
            "missed": np.flatnonzero(matches.wanted & (matches.matched_at < np.float32(threshold))),
            "false alarm": np.flatnonzero(matches.alarm & kept),
            "right": np.flatnonzero(matches.right & kept),
        }
        self._names = dict(zip(data.classes.ids.tolist(), data.classes.names, strict=True))

    def errors(self, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """(I,) misses and false alarms of each of these images."""
        own = np.concatenate(
            [
                self._regions.image_ids[self._rows["missed"]],
                self._found.image_ids[self._rows["false alarm"]],
            ]
        )
        ids, counts = np.unique(own, return_counts=True)
        table = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        return np.array([table.get(one, 0) for one in image_ids.tolist()], np.int64)

    def marks(self, image_id: int) -> tuple[Mark, ...]:
        """The boxes of one image, errors first, high scores first."""
        return tuple(mark for kind in self._rows for mark in self._of_kind(kind, image_id))

    def _of_kind(self, kind: Kind, image_id: int) -> list[Mark]:
        regions = self._regions if kind == "missed" else self._found
        rows = self._rows[kind]
        rows = rows[regions.image_ids[rows] == image_id]
        marks = []
        for row in rows.tolist():
            x, y, w, h = (float(value) for value in regions.xywh[row])
            score = None if kind == "missed" else float(self._found.scores[row])
            name = self._names[int(regions.class_ids[row])]
            marks.append(Mark(kind, name, (x, y, w, h), score))
        return sorted(marks, key=lambda mark: -(mark.score or 0.0))


def _map_cases(data: Dataset, part: list[tuple[Record, Prediction]], most: int) -> list[Case]:
    """The worst images of a part: only so many pixels are kept."""
    cases = list(_all_map_cases(data, part))
    cases.sort(key=lambda case: (-case.errors, case.record.image_id))
    return cases[:most]


def _all_map_cases(data: Dataset, part: list[tuple[Record, Prediction]]) -> Iterator[Case]:
    for record, found in part:
        if isinstance(data, SemanticData) and isinstance(found, FoundLabels):
            true = data.labels(record)
            judged, wrong = true != NO_CLASS, true != found.ids.astype(np.int64) - 1
        elif isinstance(data, PanopticData) and isinstance(found, FoundSegments):
            ids, segments = data.segments(record)
            true = _classes(ids, [(one.id, one.class_id) for one in segments])
            own = _classes(found.ids, [(one.id, one.class_id) for one in found.segments])
            judged, wrong = true != NO_CLASS, true != own
        else:
            continue
        wrong = wrong & judged
        if wrong.any():
            yield Case(record, float(wrong.sum() / judged.sum()), wrong=wrong)


def _classes(ids: NDArray[np.integer], segments: list[tuple[int, int]]) -> NDArray[np.int64]:
    """(H, W) the class id of each pixel, `NO_CLASS` where there is no segment."""
    values, places = np.unique(ids, return_inverse=True)
    table = dict(segments)
    classes = np.array([table.get(one, NO_CLASS) for one in values.tolist()], np.int64)
    found: NDArray[np.int64] = classes[places.reshape(ids.shape)]
    return found
