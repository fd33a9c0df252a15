"""Losses of masks: of regions whose masks are known, and of those that have a box alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ape_model.network.boxes import corners
from ape_model.training.data.batch import MASK_STRIDE
from ape_model.training.losses.assignment import equal_weights
from ape_model.training.losses.boxed import affinity_loss, projection_loss, similar_neighbours
from ape_model.training.losses.functional import dice_loss

if TYPE_CHECKING:
    from torch import Tensor

    from ape_model.network.ape import Ape, RawOutputs
    from ape_model.training.data.batch import Batch

__all__ = ["mask_losses"]

MASK_MARGIN = 1.3
"""Sides of the box in which mask cells count fully, over those of the region's box."""
OUTSIDE_WEIGHT = 0.1
"""Weight of the mask cells outside that box."""


def mask_losses(model: Ape, outputs: RawOutputs, batch: Batch, region: Tensor) -> dict[str, Tensor]:
    """Mask losses of the last layer's assigned queries; every region has the same weight.

    Args:
        model: Whose head makes the masks.
        outputs: Of the model for the batch.
        batch: Images and regions.
        region: (B, Q) region of each query, -1 for none.

    Returns:
        Scalars: `mask` (cross entropy) and `dice` of regions with masks; `projection` and
        `affinity` of those with a box alone, where the batch has any.
    """
    hidden = outputs.decoded.hidden[-1]
    logits = model.mask_head.logits(hidden, outputs.mask_feature)  # (B, Q, h, w)
    drawn = batch.masked.gather(1, region.clamp(min=0))  # (B, Q)
    found = _drawn_masks(logits, batch, region, (region >= 0) & drawn)
    if (batch.valid & ~batch.masked).any():
        found |= _boxed_masks(logits, batch, region, (region >= 0) & ~drawn)
    return found


def _drawn_masks(
    logits: Tensor, batch: Batch, region: Tensor, positive: Tensor
) -> dict[str, Tensor]:
    """Losses of K queries, those where `positive` (B, Q), whose regions have a mask."""
    weight = equal_weights(region, batch.boxes.shape[1])[positive]  # (K,)
    image, _ = positive.nonzero(as_tuple=True)  # (K,)
    logits = logits[positive]  # (K, h, w)
    wanted = batch.masks[image, region[positive]]  # (K, h, w)
    near = _near(batch.boxes[image, region[positive]], wanted, batch.unit)  # (K, h, w)
    cells = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * near
    total = weight.sum().clamp(min=1)
    return {
        "mask": ((cells.sum((1, 2)) / near.sum((1, 2))) * weight).sum() / total,
        "dice": (dice_loss(logits, wanted, (1, 2)) * weight).sum() / total,
    }


def _boxed_masks(
    logits: Tensor, batch: Batch, region: Tensor, positive: Tensor
) -> dict[str, Tensor]:
    """Losses of K queries, those where `positive` (B, Q), whose regions have a box alone."""
    weight = equal_weights(region, batch.boxes.shape[1])[positive]  # (K,)
    image, _ = positive.nonzero(as_tuple=True)  # (K,)
    logits = logits[positive]  # (K, h, w)
    boxes = corners(batch.boxes[image, region[positive]]) * (batch.unit / MASK_STRIDE)  # (K, 4)
    colours = functional.avg_pool2d(batch.images, MASK_STRIDE)  # (B, 3, h, w)
    inside = _inside(boxes, logits.shape[1], logits.shape[2])  # (K, h, w)
    affinity = affinity_loss(logits, similar_neighbours(colours)[image], inside)
    total = weight.sum().clamp(min=1)
    return {
        "projection": (projection_loss(logits, boxes) * weight).sum() / total,
        "affinity": (affinity * weight).sum() / total,
    }


def _near(boxes: Tensor, masks: Tensor, unit: int) -> Tensor:
    """(K, h, w) weight of mask cells: 1 in the box grown by `MASK_MARGIN`, less outside.

    Inference cuts masks to the box grown by a margin, so that the cells outside matter little.
    """
    grown = torch.cat([boxes[:, :2], boxes[:, 2:] * MASK_MARGIN], dim=-1)  # cx, cy, w, h
    cells = corners(grown) * (unit / MASK_STRIDE)
    return torch.where(_inside(cells, masks.shape[1], masks.shape[2]), 1.0, OUTSIDE_WEIGHT)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """(K, height, width) bool, whether a cell's centre is in a box (K, 4) x1, y1, x2, y2, cells."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    rows = torch.arange(height, device=boxes.device) + 0.5  # centres of cells
    cols = torch.arange(width, device=boxes.device) + 0.5
    in_rows = (rows > y1[:, None]) & (rows < y2[:, None])
    in_cols = (cols > x1[:, None]) & (cols < x2[:, None])
    return in_rows[:, :, None] & in_cols[:, None]
