"""Which predictions answer for which region: one-to-many assignment, for whole batches at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ape_model.geometry import Levels

__all__ = ["assign_queries", "assign_tokens", "box_iou", "generalised_iou"]

CENTRE_RADIUS = 1.5
"""A token answers for a region whose centre is this many strides away or nearer."""


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union of broadcast (..., 4) boxes x1 y1 x2 y2."""
    side = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    shared = side.clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b)]
    return shared, areas[0] + areas[1] - shared


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of broadcast (..., 4) boxes x1 y1 x2 y2, in 0..1; 0 for empty boxes."""
    shared, union = _overlap(a, b)
    return shared / union.clamp(min=1e-9)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU (Rezatofighi et al. 2019) of broadcast (..., 4) boxes, in -1..1."""
    shared, union = _overlap(a, b)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    hull_area = hull.clamp(min=0).prod(-1).clamp(min=1e-9)
    return shared / union.clamp(min=1e-9) - (hull_area - union) / hull_area


def _force_best(assigned: Tensor, cost: Tensor, valid: Tensor) -> Tensor:
    """Give every valid region its cheapest prediction, whatever that was assigned to before.

    Args:
        assigned: (B, P) int64, region of each prediction or -1.
        cost: (B, P, G), smaller is better.
        valid: (B, G) bool.
    """
    best = cost.argmin(1)  # (B, G)
    image, region = valid.nonzero(as_tuple=True)
    assigned = assigned.clone()
    assigned[image, best[image, region]] = region
    return assigned


def assign_tokens(
    boxes: Tensor, valid: Tensor, levels: Levels, strides: tuple[int, ...], anchors: Tensor
) -> Tensor:
    """Tokens near a region's centre, on the level whose anchor is as large as the region.

    Args:
        boxes: (B, G, 4) x1 y1 x2 y2, pixels.
        valid: (B, G) bool.
        levels: token grids, N tokens in all.
        strides: pixels per token of each level.
        anchors: (levels,) side of each level's anchor, pixels.

    Returns:
        (B, N) int64, the region each token answers for, -1 for none. A token near several takes
        the smallest; every valid region gets at least one token.
    """
    centres, stride_of, level_of = [], [], []
    for level, ((rows, cols), stride) in enumerate(zip(levels.shapes, strides, strict=True)):
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(cols) + 0.5, indexing="ij")
        centres.append(torch.stack([x, y], -1).flatten(0, 1) * stride)
        stride_of += [stride] * (rows * cols)
        level_of += [level] * (rows * cols)
    place = torch.cat(centres).to(boxes.device)  # (N, 2)
    stride = torch.tensor(stride_of, device=boxes.device)
    level = torch.tensor(level_of, device=boxes.device)
    side = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1).prod(-1).sqrt()  # (B, G)
    wanted = (side[..., None].log() - anchors.log()).abs().argmin(-1)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    away = (place[None, :, None] - middle[:, None]).abs().amax(-1) / stride[:, None]  # (B, N, G)
    fits = (level[None, :, None] == wanted[:, None]) & valid[:, None]
    area = torch.where(fits & (away <= CENTRE_RADIUS), side[:, None], torch.inf)
    smallest, region = area.min(-1)
    assigned = torch.where(smallest.isfinite(), region, -1)
    return _force_best(assigned, torch.where(fits, away, torch.inf), valid)


def assign_queries(
    predicted: Tensor, boxes: Tensor, valid: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Queries that overlap a region answer for it: many may answer for one.

    Args:
        predicted: (B, Q, 4) x1 y1 x2 y2.
        boxes: (B, G, 4) in the same unit.
        valid: (B, G) bool.
        threshold: least IoU, 0..1; the best query of each region answers in any case.

    Returns:
        (B, Q) int64, the region of each query or -1, and (B, Q) its IoU with it (0 for none).
    """
    iou = box_iou(predicted[:, :, None], boxes[:, None]) * valid[:, None]  # (B, Q, G)
    best, region = iou.max(-1)
    assigned = torch.where(best >= threshold, region, -1)
    assigned = _force_best(assigned, -iou, valid)
    own = iou.gather(2, assigned.clamp(min=0)[..., None]).squeeze(2)
    return assigned, torch.where(assigned >= 0, own, 0.0)
