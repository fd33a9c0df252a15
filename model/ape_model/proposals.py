"""Which tokens become queries: per-level top-k, NMS, a quota per level (DETA, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ape_model.geometry import corners
from ape_model.nms import nms_keep

if TYPE_CHECKING:
    from ape_model.config import ApeConfig
    from ape_model.geometry import Levels

__all__ = ["candidates_per_level", "pick_proposals"]


def candidates_per_level(objectness: Tensor, levels: Levels, topk: int) -> Tensor:
    """The strongest tokens of every level, level after level.

    The top is taken over all tokens with those of other levels at zero, as the official code
    does: only so do exact ties (invalid tokens share one state) fall the same way. A level with
    fewer than `topk` tokens is filled up with tokens of other levels, which then count for their
    own.

    Args:
        objectness: (N,) logits.
        levels: token grids.
        topk: how many per level.

    Returns:
        (levels * min(topk, N),) int64 token indices.
    """
    scores = objectness.sigmoid()
    picked = []
    for start, count in zip(levels.starts, levels.counts, strict=True):
        alone = torch.zeros_like(scores)
        alone[start : start + count] = scores[start : start + count]
        picked.append(alone.topk(min(topk, levels.total)).indices)
    return torch.cat(picked)


def _fill_quota(level_of: Tensor, quota: int, total: int) -> Tensor:
    """Positions, in order, of the best `quota` of each level, filled up with the best others.

    Args:
        level_of: (K,) level of each candidate, best candidate first; K >= total.
        quota: places sure for each level.
        total: places in all.

    Returns:
        (total,) int64 positions, ascending.
    """
    one_hot = level_of[:, None] == torch.arange(int(level_of.max()) + 1, device=level_of.device)
    rank = (one_hot.cumsum(0) * one_hot).sum(1)  # 1 = best of its level
    # Stable: those within the quota first, then the others, each in the order of their score.
    order = torch.argsort((rank > quota).to(torch.int8), stable=True)
    return order[:total].sort().values


def pick_proposals(
    objectness: Tensor, boxes: Tensor, levels: Levels, config: ApeConfig
) -> tuple[Tensor, Tensor]:
    """Choose the queries of one image.

    Args:
        objectness: (N,) logits.
        boxes: (N, 4) proposals as cx, cy, w, h in 0..1.
        levels: token grids.
        config: of the model.

    Returns:
        (queries,) int64 token indices, best first, and (K,) the survivors of NMS before the
        quota. Where too few survive, both are the plain top of all tokens.
    """
    candidates = candidates_per_level(objectness, levels, config.pre_nms_topk)
    logits = objectness[candidates]
    starts = torch.tensor(levels.starts, device=objectness.device)
    level_of = torch.bucketize(candidates, starts, right=True) - 1
    rectangles = corners(boxes[candidates]).clamp(0, 1)
    kept = candidates[nms_keep(rectangles, logits, level_of, config.proposal_nms)]
    if kept.shape[0] < config.queries:
        plain = objectness.topk(min(config.queries, levels.total)).indices
        return plain, plain
    level_of_kept = torch.bucketize(kept, starts, right=True) - 1
    quota = config.queries // len(levels.shapes)
    return kept[_fill_quota(level_of_kept, quota, config.queries)], kept
