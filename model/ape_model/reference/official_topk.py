"""Selection as the released evaluation does it, where prompts compete: for parity alone."""

from __future__ import annotations

import torch
from torch import Tensor

from ape_model.inference.selection import NMS_IOU, Selected
from ape_model.network.boxes import box_iou, corners

__all__ = ["classwise_keep", "official_top", "strongest_first"]

PAIR_BUDGET = 32 * 1024 * 1024
"""Overlapping pairs times prompts looked at in one step."""


def classwise_keep(scores: Tensor, boxes: Tensor, candidates: Tensor, threshold: float) -> Tensor:
    """Greedy NMS of every prompt by itself.

    Args:
        scores: (Q, P).
        boxes: (Q, 4) x1, y1, x2, y2, shared by all prompts.
        candidates: (Q, P) bool, which pairs take part.
        threshold: IoU above which the weaker falls; of equals, the later query.

    Returns:
        (Q, P) bool, which pairs stay.
    """
    # Boxes are the same for all prompts: the overlapping pairs are found once, scores decide later.
    overlap = (box_iou(boxes, boxes) > threshold).fill_diagonal_(fill_value=False)
    first, second = overlap.nonzero(as_tuple=True)
    step = max(1, PAIR_BUDGET // max(1, first.shape[0]))
    parts = [
        _columns_keep(some, take, first, second)
        for some, take in zip(scores.split(step, 1), candidates.split(step, 1), strict=True)
    ]
    return torch.cat(parts, dim=1)


def _columns_keep(scores: Tensor, candidates: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Fixed point of "stays unless a stronger one that stays overlaps", for each column."""
    strong, weak = scores[first], scores[second]  # (pairs, P)
    stronger = (strong > weak) | ((strong == weak) & (first < second)[:, None])
    keep = candidates
    while True:
        # How many stronger boxes that still stay overlap each box, (Q, P).
        hits = torch.zeros_like(scores).index_add_(
            0, second, (stronger & keep[first]).to(scores.dtype)
        )
        after = candidates & (hits == 0)
        if torch.equal(after, keep):
            return keep
        keep = after


def strongest_first(scores: Tensor, boxes: Tensor, keep: Tensor) -> Selected:
    """The pairs of (Q, P) scores that are kept, of (Q, 4) boxes, in order."""
    queries, prompts = keep.nonzero(as_tuple=True)
    kept = scores[queries, prompts]
    order = kept.argsort(descending=True, stable=True)
    queries, prompts = queries[order], prompts[order]
    return Selected(boxes[queries], kept[order], prompts, queries)


def official_top(
    logits: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    threshold: float,
    topk: int,
    nms: float = NMS_IOU,
) -> Selected:
    """The released evaluation: one threshold, NMS per prompt, the best of all prompts together.

    Args:
        logits: (Q, P); -inf takes a pair out.
        boxes: (Q, 4) cx, cy, w, h in 0..1 of the unpadded image.
        size: Height and width in pixels of the unpadded resized image.
        threshold: Scores must be greater.
        topk: How many are kept.
        nms: IoU above which the weaker falls.

    Returns:
        Selected pairs, boxes in pixels of `size`, clipped.
    """
    height, width = size
    limit = boxes.new_tensor([width, height, width, height])
    scores, pixels = logits.sigmoid(), corners(boxes) * limit
    # The official code drops rows that are not finite before it clips.
    finite = pixels.isfinite().all(1) & scores.isfinite().all(1)
    pixels = torch.minimum(pixels.nan_to_num().clamp(min=0), limit)
    keep = classwise_keep(scores, pixels, (scores > threshold) & finite[:, None], nms)
    best = strongest_first(scores, pixels, keep)
    return Selected(best.boxes[:topk], best.scores[:topk], best.prompts[:topk], best.queries[:topk])
