"""Plain twins: every exact rewrite of the fast path in the form the papers write down.

Nothing here is needed to run a model; tests compare the fast path with these functions, and
benchmarks take their baseline from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["deformable_sample", "sampling_locations"]


def sampling_locations(
    reference: Tensor, offsets: Tensor, shapes: Sequence[tuple[int, int]]
) -> Tensor:
    """Where to sample: (B, Q, L, 2 | 4) and (B, Q, M, L, P, 2) to (B, Q, M, L, P, 2) over sizes."""
    if reference.shape[-1] == 2:
        cells = torch.tensor([[w, h] for h, w in shapes], device=offsets.device)  # (L, 2)
        return reference[:, :, None, :, None] + offsets / cells[:, None]
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
        shapes: rows and columns of every level; their products sum to N.

    Returns:
        (B, Q, M * D), zero contributions from outside the maps.
    """
    weights = logits.flatten(-2).softmax(-1).view_as(logits)
    locations = sampling_locations(reference, offsets, shapes)
    B, _, M, D = value.shape
    Q = locations.shape[1]
    maps = value.split([rows * cols for rows, cols in shapes], dim=1)
    out = value.new_zeros(B * M, D, Q)
    for level, (shape, tokens) in enumerate(zip(shapes, maps, strict=True)):
        level_map = tokens.permute(0, 2, 3, 1).reshape(B * M, D, *shape)
        grid = locations[:, :, :, level].transpose(1, 2).flatten(0, 1) * 2 - 1  # (B * M, Q, P, 2)
        sampled = F.grid_sample(level_map, grid.to(value.dtype), align_corners=False)
        weight = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (B * M, Q, P)
        out = out + (sampled * weight[:, None]).sum(-1)
    return out.view(B, M * D, Q).transpose(1, 2)
