"""Average precision of one class at a time, by faster-coco-eval.

A class is judged on the images that hold it, in truth or in what was found; all others count
nothing. So no table of images times classes is made, and only one class is in memory as the
dictionaries that the library reads.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ape_stream.optional import library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.scoring.records import (
        FoundRegions,
        RegionTruth,
        TrueRegions,
    )

__all__ = ["IOU_THRESHOLDS", "RANGES", "Kind", "Precision", "precision_of"]

Kind = Literal["box", "mask"]
"""What the intersection over union is taken of."""
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's ten."""
RANGES = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}
"""Areas in pixels, by the letter that COCO appends to AP for them."""
_IOU_TYPES = {"box": "bbox", "mask": "segm"}
_log = logging.getLogger("ape_stream.evaluation")


@dataclass(frozen=True, slots=True, eq=False)
class Precision:
    """Precision and recall of C classes; NaN where a class has no true region."""

    precision: NDArray[np.float64]
    """(C, T, R, A): IoU thresholds, 101 recalls, ranges of area; at the last of `recall`'s M."""
    recall: NDArray[np.float64]
    """(C, T, A, M): the last axis by the most detections of an image and class that count."""

    def ap(
        self, iou: float | None = None, area: str = "", classes: NDArray[Any] | None = None
    ) -> float:
        """Average precision, 0..1; NaN without a true region.

        Args:
            iou: One of the IoU thresholds; the mean over all ten where None.
            area: One of `RANGES`.
            classes: Positions of the classes that count, or (C,) bool; all where None.
        """
        return _mean(self._chosen(self.precision, iou, classes)[..., list(RANGES).index(area)])

    def ar(self, maximum: int = -1, iou: float | None = None, area: str = "") -> float:
        """Average recall, 0..1, with the detections of the maximum at this position."""
        return _mean(self._chosen(self.recall, iou, None)[..., list(RANGES).index(area), maximum])

    @staticmethod
    def _chosen(
        values: NDArray[np.float64], iou: float | None, classes: NDArray[Any] | None
    ) -> NDArray[np.float64]:
        if classes is not None:
            values = values[classes]
        return values if iou is None else values[:, np.isclose(IOU_THRESHOLDS, iou)]


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def precision_of(
    truth: RegionTruth,
    found: FoundRegions,
    kind: Kind,
    maxima: tuple[int, ...],
    exempt: NDArray[np.bool_] | None = None,
) -> Precision:
    """Match what was found with the truth, class by class, as COCO does it.

    Args:
        truth: The annotated regions.
        found: Detections of the truth's images; those of other classes are left out.
        kind: Boxes or masks.
        maxima: Rising: how many detections of an image and class count.
        exempt: (N,) detections that are not wrong where they match nothing.

    Raises:
        ValueError: masks are asked for and some have none, or an image is not the truth's.
        PluginError: faster-coco-eval is not installed.
    """
    _check(truth, found, kind)
    exempt = np.zeros(len(found), np.bool_) if exempt is None else exempt
    shape = len(truth.classes.ids), len(IOU_THRESHOLDS)
    precision = np.full((*shape, 101, len(RANGES)), np.nan)
    recall = np.full((*shape, len(RANGES), len(maxima)), np.nan)
    for row, part in enumerate(_by_class(truth, found)):
        true, detected = truth.regions.select(part.true), found.select(part.found)
        if true.groups.all():  # no region that could be found
            continue
        judged = _judge(truth, true, detected, kind, maxima, exempt[part.found])
        values = judged["precision"][:, :, 0, :, -1]  # (T, R, A)
        precision[row] = np.where(values < 0, np.nan, values)
        values = judged["recall"][:, 0]  # (T, A, M)
        recall[row] = np.where(values < 0, np.nan, values)
    return Precision(precision, recall)


def _check(truth: RegionTruth, found: FoundRegions, kind: Kind) -> None:
    if kind == "mask" and (truth.regions.masks is None or found.masks is None):
        raise ValueError("masks are scored where annotations and detections have them")
    unknown = found.image_ids[~np.isin(found.image_ids, truth.images.ids)]
    if len(unknown):
        raise ValueError(f"image {unknown[0]} of the detections is none of the task's images")


@dataclass(frozen=True, slots=True, eq=False)
class _OneClass:
    """Positions of the regions of one class, in their order."""

    true: NDArray[np.intp]
    found: NDArray[np.intp]


def _by_class(truth: RegionTruth, found: FoundRegions) -> Iterator[_OneClass]:
    """The regions of each class in turn."""
    sides = []
    for ids in (truth.regions.class_ids, found.class_ids):
        order = np.argsort(ids, kind="stable")
        edges = [np.searchsorted(ids[order], truth.classes.ids, side) for side in ("left", "right")]
        sides.append((order, *edges))
    (true, true_from, true_to), (other, found_from, found_to) = sides
    for k in range(len(truth.classes.ids)):
        yield _OneClass(true[true_from[k] : true_to[k]], other[found_from[k] : found_to[k]])


def _judge(
    truth: RegionTruth,
    true: TrueRegions,
    found: FoundRegions,
    kind: Kind,
    maxima: tuple[int, ...],
    exempt: NDArray[np.bool_],
) -> dict[str, NDArray[np.float64]]:
    """The library's arrays for one class."""
    coco = library("faster_coco_eval", "eval")
    ids = np.union1d(true.image_ids, found.image_ids)
    sizes = truth.images.sizes[_positions(truth.images.ids, ids)].tolist()
    images = [
        {"id": key, "height": height, "width": width}
        for key, (height, width) in zip(ids.tolist(), sizes, strict=True)
    ]
    judge = coco.COCOeval_faster(
        _index(coco, images, _annotations(true, kind)),
        _index(coco, images, _detections(found, kind, exempt)),
        _IOU_TYPES[kind],
        print_function=_log.debug,
    )
    judge.params.areaRng = [list(limits) for limits in RANGES.values()]
    judge.params.areaRngLbl = list(RANGES)
    judge.params.maxDets = list(maxima)
    judge.params.useCats = 1
    judge.evaluate()
    judge.accumulate()
    result: dict[str, NDArray[np.float64]] = judge.eval
    return result


def _positions(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.intp]:
    order = np.argsort(ids)
    return order[np.searchsorted(ids, wanted, sorter=order)]


def _index(coco: Any, images: list[dict[str, int]], annotations: list[dict[str, Any]]) -> Any:
    index = coco.COCO(print_function=_log.debug)
    index.dataset = {"images": images, "categories": [{"id": 1}], "annotations": annotations}
    index.createIndex()
    return index


def _annotations(true: TrueRegions, kind: Kind) -> list[dict[str, Any]]:
    columns = zip(
        true.image_ids.tolist(),
        true.xywh.tolist(),
        true.areas.tolist(),
        true.groups.tolist(),
        strict=True,
    )
    # Ids from 1: COCO's matching takes a match with id 0 for none.
    rows: list[dict[str, Any]] = [
        {"id": k, "image_id": image, "category_id": 1, "bbox": box, "area": area, "iscrowd": int(g)}
        for k, (image, box, area, g) in enumerate(columns, start=1)
    ]
    return _with_masks(rows, true.masks if kind == "mask" else None)


def _detections(found: FoundRegions, kind: Kind, exempt: NDArray[np.bool_]) -> list[dict[str, Any]]:
    masks = found.masks if kind == "mask" else None
    xywh = found.xywh.astype(np.float64)
    # The size of a detection is that of what is scored: its mask, or its box.
    areas = xywh[:, 2] * xywh[:, 3] if masks is None else masks.areas()
    columns = zip(
        found.image_ids.tolist(),
        xywh.tolist(),
        areas.astype(np.float64).tolist(),
        found.scores.astype(np.float64).tolist(),
        exempt.tolist(),
        strict=True,
    )
    rows: list[dict[str, Any]] = [
        {"id": k, "image_id": image, "category_id": 1, "bbox": box, "area": area, "score": score}
        | {"iscrowd": 0, "lvis_mark": free}
        for k, (image, box, area, score, free) in enumerate(columns, start=1)
    ]
    return _with_masks(rows, masks)


def _with_masks(rows: list[dict[str, Any]], masks: Any) -> list[dict[str, Any]]:
    if masks is not None:
        for k, row in enumerate(rows):
            row["segmentation"] = masks[k]
    return rows
