"""Panoptic quality (arXiv 1801.00868), by the rules of COCO's evaluation code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ape_stream.evaluation.benchmarks.scoring.records import Scores, percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.scoring.records import Classes

__all__ = ["VOID", "PanopticScorer", "Segment"]

VOID = 0
"""Segment id of pixels that belong to no segment."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a panoptic map."""

    id: int
    """Its pixels have this value, never `VOID`."""
    class_id: int
    """One of the task's classes."""
    crowd: bool = False
    """Many instances in one: it need not be found. Never true of a prediction."""
    area: int | None = None
    """Pixels as the annotation file has them; counted where None."""


@dataclass(slots=True, eq=False)
class PanopticScorer:
    """Sums of matched segments over images; scorers of several shards are merged."""

    classes: Classes
    """The classes of the task."""
    things: NDArray[np.bool_]
    """(C,) which of them are things; the others are stuff."""
    counts: NDArray[np.int64] = field(init=False)
    """(C, 3) true positives, false positives, false negatives."""
    iou: NDArray[np.float64] = field(init=False)
    """(C,) sum of the IoU of true positives."""
    missing: int = 0
    """Images without a prediction."""

    def __post_init__(self) -> None:
        """Begin with no image."""
        self.counts = np.zeros((len(self.classes.ids), 3), np.int64)
        self.iou = np.zeros(len(self.classes.ids))

    def add(
        self,
        truth: NDArray[np.integer],
        true: list[Segment],
        found: NDArray[np.integer] | None,
        predicted: list[Segment],
    ) -> None:
        """Count one image.

        Args:
            truth: (H, W) segment ids.
            true: The annotated segments.
            found: (H, W) segment ids; None where there is no prediction, which is judged as void.
            predicted: The predicted segments.

        Raises:
            ValueError: maps differ in size, or predicted segments are not those of their map.
        """
        if found is None:
            self.missing += 1
            found = np.full(truth.shape, VOID, truth.dtype)
        rows = {int(key): row for row, key in enumerate(self.classes.ids)}
        overlap = _Overlap.of(truth, found)
        _check(overlap, predicted, rows)
        matched = self._match(overlap, {s.id: s for s in true}, predicted, rows)
        crowds: dict[int, int] = {}
        for segment in true:
            if segment.id in matched:
                continue
            if segment.crowd:
                crowds[segment.class_id] = segment.id  # the last one of a class counts
            else:
                self.counts[rows[segment.class_id], 2] += 1
        for segment in predicted:
            if segment.id in matched.values():
                continue
            free = overlap.both(VOID, segment.id)
            if segment.class_id in crowds:
                free += overlap.both(crowds[segment.class_id], segment.id)
            # More than half of it on pixels that are not judged: neither right nor wrong.
            self.counts[rows[segment.class_id], 1] += free / overlap.found[segment.id] <= 0.5

    def _match(
        self,
        overlap: _Overlap,
        true: Mapping[int, Segment],
        predicted: list[Segment],
        rows: Mapping[int, int],
    ) -> dict[int, int]:
        """True segment ids to the predicted ids that match them; at most one of each."""
        matched: dict[int, int] = {}
        by_id = {segment.id: segment for segment in predicted}
        for (true_id, found_id), inside in overlap.pairs.items():
            segment, other = true.get(true_id), by_id.get(found_id)
            if segment is None or other is None or segment.crowd:
                continue
            if segment.class_id != other.class_id:
                continue
            area = overlap.truth[true_id] if segment.area is None else segment.area
            union = overlap.found[found_id] + area - inside - overlap.both(VOID, found_id)
            if inside / union > 0.5:
                row = rows[segment.class_id]
                self.counts[row, 0] += 1
                self.iou[row] += inside / union
                matched[true_id] = found_id
        return matched

    def merge(self, other: PanopticScorer) -> None:
        """Add the images of a scorer of the same classes."""
        self.counts += other.counts
        self.iou += other.iou
        self.missing += other.missing

    def scores(self) -> Scores:
        """PQ, SQ and RQ over all classes that occur, over things, and over stuff."""
        right, wrong, missed = self.counts.T
        total = right + 0.5 * wrong + 0.5 * missed
        occurs = total > 0
        zeros = np.zeros(len(total))
        quality = {
            "PQ": np.divide(self.iou, total, out=zeros.copy(), where=occurs),
            "SQ": np.divide(self.iou, right, out=zeros.copy(), where=right > 0),
            "RQ": np.divide(right, total, out=zeros.copy(), where=occurs),
        }
        groups = {"": occurs, "_th": occurs & self.things, "_st": occurs & ~self.things}
        figures = {
            name + suffix: percent(values[chosen].mean()) if chosen.any() else None
            for suffix, chosen in groups.items()
            for name, values in quality.items()
        }
        by_class = {
            name: {key: percent(v[k]) if occurs[k] else None for key, v in quality.items()}
            for k, name in enumerate(self.classes.names)
        }
        note = f"{self.missing} images without a prediction were judged as void"
        return Scores(figures, by_class, (note,) if self.missing else ())


@dataclass(frozen=True, slots=True, eq=False)
class _Overlap:
    """Pixels of each segment of two maps, and of each pair of segments."""

    truth: dict[int, int]
    found: dict[int, int]
    pairs: dict[tuple[int, int], int]

    @classmethod
    def of(cls, truth: NDArray[np.integer], found: NDArray[np.integer]) -> _Overlap:
        if truth.shape != found.shape:
            raise ValueError(f"a panoptic map is {found.shape}, its truth {truth.shape}")
        keys = (truth.astype(np.int64) << 32) + found
        values, counts = np.unique(keys, return_counts=True)
        names = zip((values >> 32).tolist(), (values & 0xFFFFFFFF).tolist(), strict=True)
        pairs = dict(zip(names, counts.tolist(), strict=True))
        sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for pair, pixels in pairs.items():
            for key, side in zip(pair, sides, strict=True):
                side[key] = side.get(key, 0) + pixels
        return cls(*sides, pairs)

    def both(self, true_id: int, found_id: int) -> int:
        """Pixels that have both ids."""
        return self.pairs.get((true_id, found_id), 0)


def _check(overlap: _Overlap, predicted: list[Segment], rows: Mapping[int, int]) -> None:
    ids = {segment.id for segment in predicted}
    if ids != overlap.found.keys() - {VOID}:
        wrong = sorted(ids ^ (overlap.found.keys() - {VOID}))
        raise ValueError(f"predicted segments {wrong} are in the map or in the list, not in both")
    for segment in predicted:
        if segment.class_id not in rows:
            raise ValueError(f"class {segment.class_id} of a predicted segment is none of the task")
