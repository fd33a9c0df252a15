"""Multi-scale deformable attention (Deformable DETR, section 4.1).

Every query looks at a few points per head and level instead of at all tokens. Coordinates are
float32 or wider whatever the precision of the values: places rounded to 16 bit lose up to half a
pixel on the finest level.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ape_cuda_ops.ops import msda_fused

if TYPE_CHECKING:
    from ape_model.geometry import Levels

__all__ = ["DeformableAttention"]


class DeformableAttention(nn.Module):
    """Queries gather from a pyramid of values at learned offsets round their reference."""

    def __init__(self, width: int, *, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.n_levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self._init_weights()

    def _init_weights(self) -> None:
        """Start with the points of head h on a ray of its own, point p at distance p + 1."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ray = torch.stack([angle.cos(), angle.sin()], dim=-1)
        ray = ray / ray.abs().amax(-1, keepdim=True)  # (heads, 2) on the unit square
        distance = torch.arange(1, self.points + 1).float()
        offsets = (ray[:, None, None] * distance[:, None]).expand(-1, self.n_levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def project_value(self, tokens: Tensor, padded: Tensor | None = None) -> Tensor:
        """Project (B, N, C) tokens to values, zero where `padded` (B, N) is True."""
        value: Tensor = self.value_proj(tokens)
        return value if padded is None else value.masked_fill(padded[..., None], 0.0)

    def forward(self, query: Tensor, reference: Tensor, value: Tensor, levels: Levels) -> Tensor:
        """Gather from projected values.

        Args:
            query: (B, Q, C), content plus position.
            reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes cx, cy, w, h, over each level's
                width and height; offsets are in cells for points, in half boxes for boxes.
            value: (B, N, C) from `project_value`.
            levels: the token grids of the N values.

        Returns:
            (B, Q, C).
        """
        grid = (self.heads, self.n_levels, self.points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*grid, 2))
        logits = self.attention_weights(query).unflatten(-1, (self.heads, -1))
        value = value.unflatten(-1, (self.heads, -1))
        reference = reference.to(torch.promote_types(value.dtype, torch.float32)).contiguous()
        out: Tensor = self.output_proj(
            msda_fused(value.contiguous(), reference, offsets, logits, levels.shapes)
        )
        return out
