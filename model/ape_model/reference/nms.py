"""Non-maximum suppression as the fixed point of its own definition.

A box stays unless a stronger box of its group that itself stays overlaps it. Read as an equation
and iterated from "all stay", that reaches the greedy answer exactly, in as many steps as the
longest chain of suppressions is long (a handful), without a loop over boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ape_model.network.boxes import box_iou

__all__ = ["nms_keep"]


def _survivors(boxes: Tensor, threshold: float) -> Tensor:
    """Greedy NMS of one group: (K, 4) boxes, strongest first, to (K,) bool."""
    # [i, j]: the stronger i would remove j; above the diagonal i < j, and the first is strongest.
    suppresses = (box_iou(boxes, boxes) > threshold).triu(diagonal=1)
    keep = torch.ones(boxes.shape[0], dtype=torch.bool, device=boxes.device)
    while True:
        # The first box never changes, so the second settles after one round, and so on.
        after = ~(suppresses & keep[:, None]).any(0)
        if torch.equal(after, keep):
            return keep
        keep = after


def nms_keep(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Greedy NMS within groups.

    Args:
        boxes: (K, 4) x1, y1, x2, y2.
        scores: (K,) any order-preserving scores; of equals, the earlier is stronger.
        groups: (K,) int64; boxes of different groups never touch.
        threshold: IoU above which the weaker falls.

    Returns:
        (M,) int64 positions of those that stay, strongest first.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes, groups = boxes[order], groups[order]
    keep = torch.zeros_like(groups, dtype=torch.bool)
    for group in groups.unique():
        members = torch.nonzero(groups == group).squeeze(1)
        keep[members] = _survivors(boxes[members], threshold)
    return order[keep]
