"""The losses, element by element; the caller weights and sums them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ape_model.network.boxes import corners

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["box_losses", "dice_loss", "focal_loss", "generalised_iou", "quality_focal_loss"]


def focal_loss(
    logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss (Lin et al. 2017, eq. 5).

    Args:
        logits: Any shape.
        targets: Same shape, 0 or 1.
        alpha: Weight of positives; negatives weigh 1 - alpha.
        gamma: Exponent that reduces the loss of easy cases.

    Returns:
        Loss of each element.
    """
    score = logits.sigmoid()
    plain = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    miss = score * (1 - targets) + (1 - score) * targets  # 1 - p_t of the paper
    return (alpha * targets + (1 - alpha) * (1 - targets)) * miss**gamma * plain


def quality_focal_loss(logits: Tensor, quality: Tensor, gamma: float = 2.0) -> Tensor:
    """Quality focal loss (Li et al. 2020, eq. 2): the target of a score is the IoU of its box.

    Args:
        logits: Any shape.
        quality: Same shape, 0..1; 0 for what is not there.
        gamma: Exponent that reduces the loss of easy cases.

    Returns:
        Loss of each element.
    """
    plain = functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return (logits.sigmoid() - quality).abs() ** gamma * plain


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """GIoU of boxes pair by pair (Rezatofighi et al. 2019).

    Args:
        first: (..., 4) x1, y1, x2, y2.
        second: The same shape.

    Returns:
        (...) in -1..1.
    """
    # IoU minus the share of the hull, the least box around both, that neither covers: boxes that
    # do not overlap have a gradient towards each other too.
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    hull = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(
        first[..., :2], second[..., :2]
    )
    area = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (first, second)]
    union = (area[0] + area[1] - overlap).clamp(min=1e-9)
    around = hull.clamp(min=0).prod(-1).clamp(min=1e-9)
    return overlap / union - (around - union) / around


def box_losses(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """L1 and GIoU loss of boxes pair by pair.

    Args:
        predicted: (K, 4) cx, cy, w, h.
        target: (K, 4) cx, cy, w, h.

    Returns:
        (K,) sum of absolute differences, (K,) 1 - GIoU.
    """
    distance = (predicted - target).abs().sum(-1)
    return distance, 1 - generalised_iou(corners(predicted), corners(target))


def dice_loss(logits: Tensor, targets: Tensor, axes: Sequence[int]) -> Tensor:
    """Dice loss with a smoothing of one cell (Milletari et al. 2016).

    Args:
        logits: Masks before the sigmoid.
        targets: Same shape, 0..1.
        axes: Axes of a mask, summed over.

    Returns:
        Loss of each mask.
    """
    score = logits.sigmoid()
    both = (score * targets).sum(tuple(axes))
    # The 1 in both terms keeps an empty mask's loss finite, and zero where nothing is predicted.
    return 1 - (2 * both + 1) / (score.sum(tuple(axes)) + targets.sum(tuple(axes)) + 1)
