"""Reference forms: every exact rewrite of the fast path as the papers write it down.

Each docstring ends with the name of the fast path. No frame needs these forms; tests compare the
fast path with them, and benchmarks take their baseline from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ape_model.inference.selection import NMS_IOU, Selected, candidate_limit, scores_of
from ape_model.network.boxes import corners
from ape_model.network.proposals import candidates_per_level
from ape_model.reference.nms import nms_keep
from ape_model.reference.official_topk import classwise_keep, strongest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ape_model.network.ape import Ape, RawOutputs
    from ape_model.network.encoder import EncoderLayer
    from ape_model.network.fusion import BiAttention
    from ape_model.network.geometry import Geometry, Levels
    from ape_model.network.layers import FeedForward, SelfAttention
    from ape_model.network.transformer import Transformer
    from ape_model.network.vit import Attention

__all__ = [
    "bi_attention",
    "deformable_sample",
    "encoder_layer",
    "feed_forward",
    "region_masks",
    "rope_attention",
    "sampling_locations",
    "select",
    "select_queries",
    "self_attention",
]

SCORE_LIMIT = 50_000.0  # of GLIP: scores must not overflow float16


def bi_attention(
    block: BiAttention, vision: Tensor, text: Tensor, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Bi-directional attention with all projections (GLIP): `BiAttention.forward`."""
    q = block.by_head(block.v_proj(vision)) * block.head_dim**-0.5
    k = block.by_head(block.l_proj(text))
    scores = q @ k.mT  # (B, heads, N, T)
    # A softmax ignores any shift; the official one is by the largest score of the whole batch.
    scores = (scores - scores.max()).clamp(-SCORE_LIMIT, SCORE_LIMIT)
    # The same scores are normalised twice: over N for the text, over T for the image.
    of_text = scores.mT - scores.mT.amax(-1, keepdim=True)
    of_text = of_text.clamp(-SCORE_LIMIT, SCORE_LIMIT).softmax(-1)  # (B, heads, T, N)
    if hidden is not None:  # (B, T) bool: text tokens that the image must not see
        scores = scores.masked_fill(hidden[:, None, None], -torch.inf)
    of_vision = scores.softmax(-1)  # (B, heads, N, T)
    from_text = of_vision @ block.by_head(block.values_l_proj(text))
    from_vision = of_text @ block.by_head(block.values_v_proj(vision))
    return (
        block.out_v_proj(from_text.transpose(1, 2).flatten(2)),
        block.out_l_proj(from_vision.transpose(1, 2).flatten(2)),
    )


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """(B, T, C) queries, keys, values by an explicit score matrix: (B, T, C)."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)  # (B, heads, T, T)
    return (weights @ v).transpose(1, 2).flatten(2)


def self_attention(block: SelfAttention, query_key: Tensor, value: Tensor) -> Tensor:
    """`SelfAttention.forward`."""
    weights = block.in_proj_weight.chunk(3)  # q, k, v: (C, C) each
    biases = block.in_proj_bias.chunk(3)
    inputs = (query_key, query_key, value)
    q, k, v = (F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True))
    return block.out_proj(_attend(q, k, v, block.heads))


def rope_attention(block: Attention, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """`Attention.forward`."""
    q, k, v = block.project(x)
    # Only queries and keys turn: a score then depends on the distance of its two tokens.
    q, k = (
        block.rope(t.unflatten(-1, (block.heads, -1)).transpose(1, 2), grid)
        .transpose(1, 2)
        .flatten(2)
        for t in (q, k)
    )
    mixed = _attend(q, k, v, block.heads)
    if block.inner_norm:
        mixed = block.inner_attn_ln(mixed)
    return block.proj(mixed)


def sampling_locations(
    reference: Tensor, offsets: Tensor, shapes: Sequence[tuple[int, int]]
) -> Tensor:
    """(B, Q, L, 2 | 4) references plus offsets, both over level sizes: (B, Q, M, L, P, 2)."""
    if reference.shape[-1] == 2:
        cells = torch.tensor([[w, h] for h, w in shapes], device=offsets.device)  # (L, 2)
        return reference[:, :, None, :, None] + offsets / cells[:, None]
    # Deformable DETR with box refinement: offsets are in halves of the box, divided by P.
    points = offsets.shape[-2]
    center, size = reference[:, :, None, :, None].chunk(2, dim=-1)
    return center + offsets / points * size * 0.5


def deformable_sample(
    value: Tensor,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    shapes: Sequence[tuple[int, int]],
) -> Tensor:
    """Sample values at reference plus offsets, weigh by the softmax of the logits.

    Args:
        value: (B, N, M, D), M heads.
        reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes.
        offsets: (B, Q, M, L, P, 2).
        logits: (B, Q, M, L, P); the softmax runs over levels and points together.
        shapes: Rows and columns of every level; their products sum to N.

    Returns:
        (B, Q, M * D), zero contributions from outside the maps.
    """
    weights = logits.flatten(-2).softmax(-1).view_as(logits)  # (B, Q, M, L, P)
    locations = sampling_locations(reference, offsets, shapes)
    B, _, M, D = value.shape
    Q = locations.shape[1]
    # Heads are moved into the batch: `grid_sample` takes one grid per map.
    maps = value.split([rows * cols for rows, cols in shapes], dim=1)
    out = value.new_zeros(B * M, D, Q)
    for level, (shape, tokens) in enumerate(zip(shapes, maps, strict=True)):
        level_map = tokens.permute(0, 2, 3, 1).reshape(B * M, D, *shape)
        # `grid_sample` counts from -1 to 1 between the outer borders.
        grid = locations[:, :, :, level].transpose(1, 2).flatten(0, 1) * 2 - 1  # (B * M, Q, P, 2)
        sampled = F.grid_sample(level_map, grid.to(value.dtype), align_corners=False)
        # (B * M, D, Q, P)
        weight = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (B * M, Q, P)
        out = out + (sampled * weight[:, None]).sum(-1)
    return out.view(B, M * D, Q).transpose(1, 2)


def feed_forward(block: FeedForward, x: Tensor) -> Tensor:
    """All tokens at once: `FeedForward.forward`."""
    return x + block.layers(x)


def encoder_layer(
    block: EncoderLayer, tokens: Tensor, position: Tensor, geometry: Geometry
) -> Tensor:
    """All queries at once: `EncoderLayer.forward`."""
    value = block.attention.value_proj(tokens).masked_fill(geometry.padded[..., None], 0.0)
    return block.attend(tokens, position, geometry.reference, value, geometry.levels)


def select_queries(
    block: Transformer, objectness: Tensor, boxes: Callable[[Tensor], Tensor], levels: Levels
) -> Tensor:
    """Boxes of all tokens, as many rows as survive: `Transformer.select_queries`."""
    config = block.config
    proposals = boxes(torch.arange(levels.total, device=objectness.device))
    candidates = candidates_per_level(objectness, levels, config.pre_nms_topk)
    # From the index, not from the turn: short levels are filled up with tokens of other levels.
    starts = torch.tensor(levels.starts, device=objectness.device)
    level_of = torch.bucketize(candidates, starts, right=True) - 1
    rectangles = corners(proposals[candidates]).clamp(0, 1)
    kept = nms_keep(rectangles, objectness[candidates], level_of, config.proposal_nms)
    if len(kept) < config.queries:
        return objectness.topk(min(config.queries, levels.total)).indices
    # `kept` is in the order of scores: the quota marks positions in it, and the order stays.
    first, quota = torch.zeros_like(kept, dtype=torch.bool), config.queries // len(levels.shapes)
    for level in range(len(levels.shapes)):
        first[torch.nonzero(level_of[kept] == level).squeeze(1)[:quota]] = True
    # What the levels left free goes to the best of all others.
    others = torch.nonzero(~first).squeeze(1)[: config.queries - int(first.sum())]
    first[others] = True
    return candidates[kept[first]]


def select(
    logits: Tensor, boxes: Tensor, thresholds: Tensor, *, per_prompt: int, nms: float = NMS_IOU
) -> Selected:
    """All (Q, P) pairs of one image at once: `ape_model.inference.selection.select`."""
    scores, inside = scores_of(logits), corners(boxes).clamp(0, 1)
    above = scores >= thresholds.to(scores)
    limit = candidate_limit(per_prompt, int(above.any(0).sum()))  # prompts with a candidate
    above &= _ranks(scores.masked_fill(~above, -1.0)) < limit
    keep = classwise_keep(scores, inside, above, nms)
    keep &= _ranks(scores.masked_fill(~keep, -1.0)) < per_prompt
    return strongest_first(scores, inside, keep)


def _ranks(scores: Tensor) -> Tensor:
    """(Q, P) rank of every query among those of its prompt, 0 for the strongest."""
    # The first sort says who is at each rank, the second inverts that.
    return scores.argsort(dim=0, descending=True, stable=True).argsort(dim=0)


def region_masks(
    model: Ape, outputs: RawOutputs, image: int, queries: Tensor | None = None
) -> Tensor:
    """Masks of all queries after all layers, of which some are taken: `Ape.region_masks`."""
    feature = outputs.mask_feature[image]
    every = [model.mask_head.logits(states[image], feature) for states in outputs.decoded.hidden]
    return every[-1] if queries is None else every[-1][queries]
