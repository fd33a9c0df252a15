"""The terms of the training loss, each a sum over what it is given; callers divide."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ape_model.training.assign import generalised_iou

__all__ = ["box_loss", "mask_loss", "name_loss", "pick_loss", "quality_focal"]

L1_WEIGHT, GIOU_WEIGHT = 5.0, 2.0
OUTSIDE_WEIGHT, MARGIN = 0.1, 0.15
"""Mask cells further outside than this part of the box count little: inference cuts them off."""


def quality_focal(logits: Tensor, quality: Tensor) -> Tensor:
    """Quality focal loss (Li et al. 2020, gamma 2): the score shall be the quality itself.

    Args:
        logits: any shape.
        quality: the same shape, 0..1; the IoU of a right answer, 0 of a wrong one.
    """
    gap = (quality - logits.sigmoid()).abs()
    plain = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return (gap.square() * plain).sum()


def box_loss(predicted: Tensor, truth: Tensor, unit: float) -> Tensor:
    """5 L1 + 2 GIoU of (K, 4) boxes x1 y1 x2 y2, pixels; `unit` pixels are 1.0 of L1."""
    distance = (predicted - truth).abs().sum() / unit
    return L1_WEIGHT * distance + GIOU_WEIGHT * (1 - generalised_iou(predicted, truth)).sum()


def name_loss(logits: Tensor, true: Tensor) -> Tensor:
    """Cross entropy of (K, L) alignments, where several prompts may be true of one region.

    Args:
        logits: of K regions with L prompts.
        true: (K, L) bool, at least one a row; the others that are true are left out of the sum.
    """
    best = logits.masked_fill(~true, -torch.inf).amax(1)
    rivals = logits.masked_fill(true, -torch.inf).logsumexp(1)
    return F.softplus(rivals - best).sum()


def pick_loss(logits: Tensor, right: Tensor) -> Tensor:
    """Cross entropy over regions: -log of the share that the right ones have in each column.

    Args:
        logits: (Q, T), Q regions against T sentences.
        right: (Q, T) bool; columns without a right region do not count.
    """
    known = right.any(0)
    every = logits[:, known].logsumexp(0)
    return (every - logits[:, known].masked_fill(~right[:, known], -torch.inf).logsumexp(0)).sum()


def mask_loss(logits: Tensor, truth: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """2 BCE + 2 dice of K masks.

    Args:
        logits: (K, H, W).
        truth: (K, H, W) bool.
        boxes: (K, 4) x1 y1 x2 y2 of the true regions, pixels.
        stride: pixels per cell.
    """
    weight = _near(boxes / stride, logits.shape[-2:])
    target = truth.float()
    plain = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    bce = (plain * weight).sum((1, 2)) / weight.sum((1, 2))
    soft = logits.sigmoid() * weight
    shared = (soft * target).sum((1, 2))
    dice = 1 - (2 * shared + 1) / (soft.sum((1, 2)) + (target * weight).sum((1, 2)) + 1)
    return 2 * (bce + dice).sum()


def _near(boxes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(K, H, W) weights: 1 in and round each (K, 4) box, in cells, little elsewhere."""
    rows = torch.arange(shape[0], device=boxes.device) + 0.5
    cols = torch.arange(shape[1], device=boxes.device) + 0.5
    grown = MARGIN * (boxes[:, 2:] - boxes[:, :2])
    low, high = boxes[:, :2] - grown - 1, boxes[:, 2:] + grown + 1
    inside_x = (cols >= low[:, :1]) & (cols <= high[:, :1])
    inside_y = (rows >= low[:, 1:]) & (rows <= high[:, 1:])
    return torch.where(inside_y[:, :, None] & inside_x[:, None], 1.0, OUTSIDE_WEIGHT)
