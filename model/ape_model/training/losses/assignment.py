"""Which predictions are trained on which regions: one-to-many by overlap, in both stages (DETA).

All functions work on whole batches; no loop over images. Regions are padded to the largest
number of the batch; padding is never assigned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ape_model.network.boxes import box_iou

__all__ = ["assign_queries", "assign_tokens", "best_queries", "equal_weights"]

UNASSIGNED = -1
"""In place of a region: the query has none."""

# Every function compares all predictions of an image with all its regions in one (B, K, G) matrix.
# Padded regions get a value below every IoU, so that they are never the maximum.


def assign_tokens(
    anchors: Tensor,
    boxes: Tensor,
    valid: Tensor,
    *,
    padded: Tensor | None = None,
    shares: Tensor | None = None,
    threshold: float = 0.6,
    least: int = 6,
) -> Tensor:
    """Assign to every region the anchors inside it that overlap it best (first stage).

    Args:
        anchors: (N, 4) x1, y1, x2, y2.
        boxes: (B, G, 4) x1, y1, x2, y2 of the regions, in the same unit.
        valid: (B, G) bool, False for padding.
        padded: (B, N) bool, anchors that are never assigned; None for none.
        shares: (B, N, G) 0..1, how much of an anchor's cell a region's mask covers; None: unknown.
        threshold: An anchor of at least this IoU is assigned in any case.
        least: Best anchors of each region, assigned at any IoU.

    Returns:
        (B, N) int64: the region of each anchor, -1 for none. An anchor that several regions claim
        goes to the one it overlaps most, so that a small thing wins over what is behind it; with
        `shares`, to the one whose mask is there.
    """
    iou = box_iou(anchors, boxes)  # (B, N, G)
    center = (anchors[:, :2] + anchors[:, 2:]) / 2  # (N, 2)
    inside = (
        (center[:, None] > boxes[:, None, :, :2]) & (center[:, None] < boxes[:, None, :, 2:])
    ).all(-1)  # (B, N, G)
    usable = valid[:, None] if padded is None else valid[:, None] & ~padded[..., None]
    iou = torch.where(usable, iou, -2.0)  # stays below all usable ones when 1 is added
    # IoU is at most 1: anchors with their centre inside come first, each group by overlap.
    rank = iou + inside
    if shares is not None:
        # The centre of a wide region's box may show something else: trees on both sides of a road.
        rank = torch.where(usable, rank + shares, rank)
    kth = rank.topk(min(least, rank.shape[1]), dim=1).values[:, -1:]  # (B, 1, G)
    claimed = ((rank >= kth) | (iou >= threshold)) & usable
    claim = iou if shares is None else rank
    best, region = torch.where(claimed, claim, -1.0).max(-1)  # (B, N) each
    return torch.where(best >= 0, region, UNASSIGNED)


def assign_queries(
    predicted: Tensor,
    boxes: Tensor,
    valid: Tensor,
    threshold: float,
    fit: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Assign to every region the queries whose boxes overlap it (second stage).

    Args:
        predicted: (B, Q, 4) x1, y1, x2, y2.
        boxes: (B, G, 4) x1, y1, x2, y2 of the regions.
        valid: (B, G) bool, False for padding.
        threshold: IoU from which a query is assigned; the best query of each region always is.
        fit: (B, Q, G) over 0, how well query and region fit in other ways than by their boxes (as
            the class score of Feng et al. 2021, TOOD): IoU times fit then decides between several.

    Returns:
        (B, Q) int64 region of each query, -1 for none, and (B, Q) its IoU with its best region, or
        with `fit`, with the region that it is assigned to.
    """
    iou = torch.where(valid[:, None], box_iou(predicted, boxes), -1.0)  # (B, Q, G)
    overlap, region = iou.max(-1)  # (B, Q) each
    affinity = iou
    if fit is not None:
        # Road, building and trees all have boxes as wide as the image: IoU alone would give all
        # wide queries to one of them, another one at every step.
        affinity = torch.where(iou > 0, iou * fit, iou)
        region = affinity.masked_fill(iou < threshold, UNASSIGNED).argmax(-1)
    region = torch.where(overlap >= threshold, region, UNASSIGNED)
    # The best query of a region is assigned to it, even below the threshold and even if it overlaps
    # another region more; of several such claims the one with the largest IoU wins.
    best = affinity.argmax(1)  # (B, G)
    forced = torch.zeros_like(iou, dtype=torch.bool).scatter_(1, best[:, None], 1)
    # A region that no query touches forces none: argmax would give it query 0.
    forced &= valid[:, None] & (iou > 0)  # (B, Q, G)
    claim, claimed_by = torch.where(forced, affinity, -1.0).max(-1)
    region = torch.where(claim > 0, claimed_by, region)
    if fit is not None:
        overlap = iou.gather(-1, region.clamp(min=0)[..., None])[..., 0]
    return region, overlap.clamp(min=0)


def best_queries(predicted: Tensor, boxes: Tensor) -> Tensor:
    """Find the query whose box overlaps each region most.

    Args:
        predicted: (B, Q, 4) x1, y1, x2, y2.
        boxes: (B, G, 4) x1, y1, x2, y2 of the regions.

    Returns:
        (B, G) int64, 0..Q-1; any in padding.
    """
    return box_iou(predicted, boxes).argmax(1)


def equal_weights(region: Tensor, regions: int) -> Tensor:
    """Weights that give every region the same total, for any number of its predictions.

    This is the paper's thing-stuff equalisation: a sky of a hundred tokens weighs one region.

    Args:
        region: (B, K) int64 region of each prediction, -1 for none.
        regions: G, regions of an image with padding.

    Returns:
        (B, K) float32, one over the number of predictions of the same region; 0 where unassigned.
    """
    member = region[..., None] == torch.arange(regions, device=region.device)  # (B, K, G)
    share = member / member.sum(1, keepdim=True).clamp(min=1)
    return share.sum(-1)  # a prediction belongs to one region at most: the sum selects its share
