"""Losses of maps of classes, for data that label nearly every pixel.

The losses of single regions do not see that together the queries leave a pixel out, or that the
right one is not the strongest there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from ape_model.network.align import Align
    from ape_model.training.data.batch import Batch

__all__ = ["head_map_loss", "map_loss", "semantic_shares", "token_shares"]

EPSILON = 1e-6  # keeps logarithms and divisions finite


def head_map_loss(
    head: Align, maps: Tensor, names: Tensor, batch: Batch, classes: Tensor
) -> Tensor:
    """`map_loss` of a class head on every pixel of (B, C', h, w) maps."""
    logits = head(maps.flatten(2).mT, names[None])  # (B, h * w, C)
    return map_loss(logits.log_softmax(-1).mT.unflatten(-1, maps.shape[-2:]), batch, classes)


def semantic_shares(scores: Tensor, masks: Tensor) -> Tensor:
    """Share of each class in each pixel of the semantic map (MaskFormer, section 3.4).

    Args:
        scores: (B, Q, C) of queries and names, 0..1.
        masks: (B, Q, h, w) of the queries, 0..1.

    Returns:
        (B, C, h, w): what all queries together say, scaled to a sum of one in each pixel; at least
        `EPSILON`.
    """
    painted = torch.einsum("bqc,bqhw->bchw", scores, masks)
    share = painted / painted.sum(1, keepdim=True).clamp(min=EPSILON)
    return share.clamp(min=EPSILON)


def map_loss(log_shares: Tensor, batch: Batch, classes: Tensor) -> Tensor:
    """Cross entropy and dice of a map of classes; pixels of no region are left out.

    The losses of single regions do not see that together the queries leave a pixel out, or that the
    right one is not the strongest there.

    Args:
        log_shares: (B, C, h, w) logarithm of the share of each class, at a stride of the masks or a
            multiple of it.
        batch: With the masks of the regions.
        classes: (B, G) int64 class of each region.

    Returns:
        The sum of both, scalar.
    """
    masks = batch.masks * batch.valid[..., None, None]  # (B, G, H, W)
    factor = masks.shape[-1] // log_shares.shape[-1]
    masks = functional.avg_pool2d(masks, factor) if factor > 1 else masks  # (B, G, h, w)
    wanted = torch.zeros_like(log_shares)  # (B, C, h, w): share of each class in the labels
    wanted.scatter_add_(1, classes[..., None, None].expand_as(masks), masks)
    # A region weighs the root of its area in all, so that a thin pole counts next to a wide road.
    area = masks.sum((-2, -1), keepdim=True).clamp(min=1)
    weight = torch.zeros_like(log_shares)
    weight.scatter_add_(1, classes[..., None, None].expand_as(masks), masks / area.sqrt())
    entropy = -(log_shares * weight).sum() / weight.sum().clamp(min=1)
    # Dice over all images together: per class, so that a rare class counts as a frequent one.
    shares = log_shares.exp() * wanted.sum(1, keepdim=True)
    both, total = (shares * wanted).sum((0, 2, 3)), (shares + wanted).sum((0, 2, 3))  # (C,)
    shown = wanted.sum((0, 2, 3)) > 0
    dice = 1 - (2 * both[shown] + 1) / (total[shown] + 1)
    return entropy + dice.mean() if bool(shown.any()) else entropy


def token_shares(masks: Tensor) -> Tensor:
    """(B, G, H / 4, W / 4) masks to (B, N, G), the part of each token's cell that each covers."""
    levels = [functional.avg_pool2d(masks, factor).flatten(2) for factor in (2, 4, 8)]
    return torch.cat(levels, dim=-1).mT
