"""Which tokens become queries: per-level top-k, NMS, a quota per level (DETA, section 3.2).

No shape here depends on the scores: the host never waits for a GPU, and a CUDA graph can
capture it. `ape_model.reference.modules` has the choice as the paper describes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ape_cuda_ops.ops import nms_grouped
from ape_model.network.boxes import corners

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_model.config import ApeConfig
    from ape_model.network.geometry import Levels

__all__ = ["candidates_per_level", "select_queries", "survivors_per_level"]


def candidates_per_level(objectness: Tensor, levels: Levels, topk: int) -> Tensor:
    """The strongest tokens of every level, level after level.

    The top is taken over all tokens with those of other levels at zero, as the official code
    does: only so do exact ties (invalid tokens share one state) fall the same way. A level with
    fewer than `topk` tokens is filled up with tokens of other levels, which then count for their
    own.

    Args:
        objectness: (N,) logits.
        levels: Token grids.
        topk: How many per level.

    Returns:
        (levels * min(topk, N),) int64 token indices.
    """
    scores = objectness.sigmoid()
    picked = []
    for start, count in zip(levels.starts, levels.counts, strict=True):
        alone = torch.zeros_like(scores)  # (N,)
        alone[start : start + count] = scores[start : start + count]
        picked.append(alone.topk(min(topk, levels.total)).indices)
    return torch.cat(picked)


def survivors_per_level(
    objectness: Tensor, boxes: Callable[[Tensor], Tensor], levels: Levels, config: ApeConfig
) -> tuple[Tensor, Tensor]:
    """Suppress the weaker of overlapping candidates of one level, level by level.

    Args:
        objectness: (N,) logits.
        boxes: (K,) int64 tokens to their (K, 4) proposals, cx, cy, w, h in 0..1.
        levels: L token grids.
        config: Of the model.

    Returns:
        (K,) int64 candidates, best first, and (L, K) bool: which are of a level and survive.
    """
    candidates = candidates_per_level(objectness, levels, config.pre_nms_topk)
    # Sorted once, so that a position is also a rank: no score is compared after this.
    candidates = candidates[objectness[candidates].argsort(descending=True, stable=True)]
    spans = zip(levels.starts, levels.counts, strict=True)
    own = torch.stack([(candidates >= first) & (candidates < first + n) for first, n in spans])
    level = (own * torch.arange(len(own), device=own.device)[:, None]).sum(0)  # (K,) int64
    rectangles = corners(boxes(candidates)).clamp(0, 1)  # (K, 4)
    # The order is made: falling numbers stand for scores, which may have 16 bits and ties.
    strength = torch.arange(len(candidates), 0, -1, device=own.device).float()
    keep = nms_grouped(rectangles, strength, level, len(own), config.proposal_nms)
    return candidates, own & keep


def _fill_quota(survivors: Tensor, quota: int, total: int) -> Tensor:
    """Positions, in order, of the best `quota` of each level, filled up with the best others.

    Args:
        survivors: (L, K) bool, best candidate first, each True in its level if it survived.
        quota: Positions reserved for each level.
        total: Positions in all, K at most.

    Returns:
        (total,) int64 positions, ascending; only where survivors are too few, of others as well.
    """
    rank = (survivors.cumsum(1) * survivors).sum(0)  # 1 = best of its level, 0 = fell
    # 0: within its quota, 1: survived beyond it, 2: suppressed, taken only to fill the count.
    turn = (rank > quota).to(torch.int8) + 2 * (rank == 0)  # (K,)
    # Stable: those within the quota first, then the others, each in the order of their score.
    return turn.argsort(stable=True)[:total].sort().values


def select_queries(
    objectness: Tensor, boxes: Callable[[Tensor], Tensor], levels: Levels, config: ApeConfig
) -> Tensor:
    """Choose the queries of one image.

    Args:
        objectness: (N,) logits.
        boxes: (K,) int64 tokens to their (K, 4) proposals, cx, cy, w, h in 0..1.
        levels: Token grids.
        config: Of the model.

    Returns:
        (min(queries, N),) int64 token indices, best first; the plain top of all tokens where
        fewer survive than there are queries.
    """
    total = min(config.queries, levels.total)
    plain = objectness.topk(total).indices
    candidates, survivors = survivors_per_level(objectness, boxes, levels, config)
    if len(candidates) < config.queries:
        return plain
    # Both choices are made and one is taken: a branch would have to wait for the GPU.
    best = candidates[_fill_quota(survivors, config.queries // len(survivors), total)]
    return torch.where(survivors.sum() >= config.queries, best, plain)
