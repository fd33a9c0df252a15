"""Average precision, precision and recall of masks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ape_stream.masks import area, crop, encode_rle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_stream.protocols.worlds import AnnotatedImage, Region
    from ape_stream.types import Instances

__all__ = [
    "Average",
    "ImageResult",
    "average_of",
    "average_precision",
    "class_agnostic_recall",
    "coco_index",
    "judge_with_coco",
    "precision_recall",
]

IOU_50 = 0  # position of 0.5 among COCO's ten IoU thresholds


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """One image's truth, and what was found in it.

    Masks are kept as run lengths: at a low threshold there are a thousand of them in an image.
    """

    truth: AnnotatedImage
    """The truth."""
    class_ids: NDArray[np.int64]
    """(N,) int64: the class that each found region claims to be."""
    scores: NDArray[np.float32]
    """(N,) float32, 0..1."""
    codes: tuple[dict[str, Any], ...]
    """N COCO run-length codes of the frame."""

    @classmethod
    def of(cls, truth: AnnotatedImage, found: Instances) -> ImageResult:
        """Keep what was found; prompt ids are class ids."""
        codes = tuple(
            encode_rle(mask, found.size) for mask in found.masks_for("average precision of masks")
        )
        return cls(truth, found.prompt_ids, found.scores, codes)


@dataclass(frozen=True, slots=True, eq=False)
class Average:
    """Average precision per class; classes without truth are NaN."""

    ap50: NDArray[np.float64]
    """(C,) at IoU 0.5."""
    ap: NDArray[np.float64]
    """(C,) mean over IoU 0.5, 0.55 .. 0.95."""

    def mean50(self, classes: slice = slice(None)) -> float:
        """Mean AP50 over the classes that occur; 0 where none does."""
        return _mean(self.ap50[classes])

    def mean(self) -> float:
        """Mean AP over the classes that occur; 0 where none does."""
        return _mean(self.ap)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else 0.0  # NaN: no truth of that class


def _images(results: Sequence[ImageResult]) -> list[dict[str, int]]:
    shapes = [one.truth.instance_map.shape for one in results]
    return [{"id": k, "height": h, "width": w} for k, (h, w) in enumerate(shapes)]


def _truth(results: Sequence[ImageResult], classes: int) -> COCO:
    """The truth as a COCO index; regions that may be missed are crowds."""
    annotations: list[dict[str, Any]] = []
    for k, one in enumerate(results):
        annotations += [_annotation(one.truth, r, k, crowd=0) for r in one.truth.instances]
        # A crowd need not be found, and what is found on it counts neither as right nor as wrong.
        annotations += [_annotation(one.truth, r, k, crowd=1) for r in one.truth.ignored]
    return coco_index(_images(results), annotations, classes)


def _annotation(
    truth: AnnotatedImage, region: Region, image_id: int, *, crowd: int
) -> dict[str, Any]:
    size = truth.instance_map.shape
    mask = crop(truth.instance_map == region.id)
    return {
        "image_id": image_id,
        "category_id": region.class_id,
        "segmentation": encode_rle(mask, (size[0], size[1])),
        "area": area(mask),
        "bbox": [0, 0, 1, 1],  # required, not used for masks
        "iscrowd": crowd,
    }


def _found(results: Sequence[ImageResult]) -> COCO:
    """What was found as a COCO index of results."""
    annotations: list[dict[str, Any]] = []
    for k, one in enumerate(results):
        for n, code in enumerate(one.codes):
            annotations.append(
                {
                    "image_id": k,
                    "category_id": int(one.class_ids[n]),
                    "segmentation": code,
                    "area": int(rle.area(code)),  # of many at once, it fails beyond 255
                    "score": float(one.scores[n]),
                    "iscrowd": 0,
                }
            )
    return coco_index(_images(results), annotations)


def _run(results: Sequence[ImageResult], classes: int, *, class_agnostic: bool = False) -> COCOeval:
    truth, found = _truth(results, classes), _found(results)
    return judge_with_coco(truth, found, "segm", class_agnostic=class_agnostic)


def coco_index(
    images: Sequence[dict[str, int]], annotations: list[dict[str, Any]], classes: int = 0
) -> COCO:
    """Rows in COCO's form as an index of the library.

    Args:
        images: `id`, `height`, `width`.
        annotations: True regions, or what was found; they are numbered here.
        classes: Number of class ids, from 0 on; 0 for what was found.
    """
    for number, annotation in enumerate(annotations):
        # From 1: the library takes a match with id 0 for no match.
        annotation["id"] = number + 1
    index = COCO()
    index.dataset = {
        "images": list(images),
        "categories": [{"id": c} for c in range(classes)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints its progress
        index.createIndex()
    return index


def judge_with_coco(
    truth: COCO, found: COCO, kind: str, *, class_agnostic: bool = False
) -> COCOeval:
    """Match what was found with the truth.

    Args:
        truth: True regions; crowds need not be found.
        found: What was found, with scores.
        kind: What the IoU is taken of: "segm" or "bbox".
        class_agnostic: Names do not matter.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints its progress
        judge = COCOeval(truth, found, kind)
        # One range: small, medium and large in COCO are sizes of its own photos.
        judge.params.areaRng = [[0, 1e10]]
        judge.params.areaRngLbl = ["all"]
        judge.params.maxDets = [100]  # in an image, per class; COCO's own number
        judge.params.useCats = 0 if class_agnostic else 1
        judge.evaluate()
        judge.accumulate()
    return judge


def average_of(judge: COCOeval) -> Average:
    """COCO's average precision per class of what was matched."""
    precision = judge.eval["precision"][..., 0, 0]  # (IoU, recall, class)
    precision = np.where(precision < 0, np.nan, precision)  # -1: no truth of that class
    per_iou = precision.mean(axis=1)  # (IoU, class): mean over 101 recalls
    return Average(ap50=per_iou[IOU_50], ap=per_iou.mean(axis=0))


def average_precision(results: Sequence[ImageResult], classes: int) -> Average:
    """COCO's average precision of masks, per class.

    Args:
        results: Images with what was found, at a low threshold: AP needs the weak ones too.
        classes: How many classes there are.
    """
    return average_of(_run(results, classes))


def class_agnostic_recall(results: Sequence[ImageResult], classes: int) -> float:
    """Share of the true regions that any of the 100 best masks covers at IoU 0.5, named or not.

    It bounds the average precision that better naming alone could reach.

    Args:
        results: Images with what was found, at a low threshold.
        classes: How many classes there are; the library gathers regions by class first.
    """
    recall = _run(results, classes, class_agnostic=True).eval["recall"][IOU_50, 0, 0, 0]
    return max(0.0, float(recall))


def precision_recall(results: Sequence[ImageResult], classes: int) -> tuple[float, float]:
    """Precision and recall at mask IoU 0.5 of all that was found, at any score.

    Args:
        results: Images with what was found at the threshold in question.
        classes: How many classes there are.
    """
    right = wrong = asked = 0
    for image in _run(results, classes).evalImgs:
        # Neither truth nor findings of that class in that image.
        if image is None:
            continue
        counted = ~image["dtIgnore"][IOU_50].astype(bool)  # (N,) not on a crowd
        matched = image["dtMatches"][IOU_50] > 0
        right += int((matched & counted).sum())
        wrong += int((~matched & counted).sum())
        asked += int((~np.asarray(image["gtIgnore"], bool)).sum())
    return right / max(1, right + wrong), right / max(1, asked)
