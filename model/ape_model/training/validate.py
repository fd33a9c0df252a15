"""Validation during training: average precision and recall of boxes on a few images."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from ape_model.config import NANO
from ape_model.inference.selection import select
from ape_model.network.boxes import box_iou, corners
from ape_model.training.data.batch import collate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_model.config import ApeConfig, NanoConfig
    from ape_model.network.ape import Ape
    from ape_model.training.data.batch import Example

__all__ = ["validate"]

CANDIDATES = 100
"""Detections of an image: the best of all (query, name) pairs."""
LOW = 0.01
"""Least score: AP needs the weak ones too."""


@torch.no_grad()
def validate(
    model: Ape,
    names: Tensor,
    things: int,
    examples: Sequence[Example],
    config: NanoConfig | ApeConfig = NANO,
) -> dict[str, float]:
    """Evaluate the boxes of a network with all main names as prompts.

    Args:
        model: In eval mode.
        names: (C, D) vectors of the main names, things first.
        things: Number of names of things.
        examples: Images with their regions.
        config: Of the model, which may be on a GPU.

    Returns:
        things_ap50 and stuff_ap50 (if there are such names), agnostic_recall50 (part of the regions
        that the box of any query overlaps with IoU 0.5), all 0..1; and absent, the mean number of
        names that score over 0.5 and are not in the image.
    """
    found: list[list[float]] = []
    hits = total = absent = 0
    for index, example in enumerate(examples, start=1):
        batch = collate([example], config)
        outputs = model(batch.images.to(names.device), model.vocabulary(names), batch.sizes)
        boxes = corners(outputs.boxes[0].cpu()) * _scale(example)  # (Q, 4) pixels
        best = box_iou(torch.from_numpy(example.boxes), boxes).amax(1)  # (G,)
        hits, total = hits + int((best >= 0.5).sum()), total + len(best)
        scores = outputs.logits[0].sigmoid().cpu()  # (Q, C)
        # Names that the network claims with confidence, though no region has them.
        claimed = set((scores > 0.5).any(0).nonzero()[:, 0].tolist())
        absent += len(claimed - set(example.classes.tolist()))
        found += _rows(index, outputs.logits, outputs.boxes, _scale(example))
    truth = _truth(examples, len(names))
    kinds = {"things_ap50": range(things), "stuff_ap50": range(things, len(names))}
    return {key: _ap50(truth, found, list(ids)) for key, ids in kinds.items() if ids} | {
        "agnostic_recall50": hits / max(1, total),
        "absent": absent / len(examples),
    }


def _scale(example: Example) -> Tensor:
    height, width = example.image.shape[:2]
    return torch.tensor([width, height, width, height])


def _rows(index: int, logits: Tensor, boxes: Tensor, scale: Tensor) -> list[list[float]]:
    """Regions as inference selects them: rows of image, x, y, w, h, score, class (COCO results).

    Training gives a region several queries: without suppression all but one of them count as wrong.

    Args:
        index: Of the image.
        logits: (1, Q, C) of queries and names.
        boxes: (1, Q, 4) cx, cy, w, h in 0..1.
        scale: (4,) width and height of the image, twice, pixels.
    """
    thresholds = torch.full((logits.shape[-1],), LOW)
    [[kept]] = select([(logits, boxes, thresholds)], per_prompt=CANDIDATES)  # strongest first
    corner, end = (kept.boxes * scale)[:CANDIDATES].chunk(2, dim=1)  # (K, 2) each
    columns = (kept.scores[:CANDIDATES, None], kept.prompts[:CANDIDATES, None])
    image = torch.full((len(corner), 1), float(index))
    return torch.cat([image, corner, end - corner, *columns], dim=1).tolist()


def _truth(examples: Sequence[Example], classes: int) -> COCO:
    """Ground-truth boxes as a COCO index."""
    annotations: list[dict[str, Any]] = []
    for index, example in enumerate(examples, start=1):
        for (x1, y1, x2, y2), name in zip(example.boxes, example.classes, strict=True):
            box = [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": int(name),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    truth = COCO()
    truth.dataset = {
        "images": [{"id": k + 1} for k in range(len(examples))],
        "annotations": annotations,
        "categories": [{"id": k} for k in range(classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth.createIndex()
    return truth


def _ap50(truth: COCO, found: list[list[float]], classes: list[int]) -> float:
    """Mean average precision at IoU 0.5 over the classes that occur."""
    if not found:  # pycocotools reads no empty list
        return 0.0
    table: NDArray[np.float64] = np.array(found).reshape(-1, 7)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(truth, truth.loadRes(table), "bbox")
        evaluator.params.catIds = classes
        evaluator.params.iouThrs = np.array([0.5])
        evaluator.evaluate()
        evaluator.accumulate()
    # (IoU, recall, class, area, detections): the one IoU, all areas, the most detections.
    precision = evaluator.eval["precision"][0, :, :, 0, -1]  # (101, classes)
    seen = precision[precision > -1]  # -1: the class does not occur
    return float(seen.mean()) if seen.size else 0.0
