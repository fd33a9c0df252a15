"""Multi-scale deformable attention (Deformable DETR, section 4.1).

Every query samples a few points per head and level instead of reading all tokens. Coordinates are
float32 or wider, also where values have 16 bits: rounded, they are off by up to half a pixel on the
finest level.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ape_cuda_ops.ops import msda_fused
from ape_model.network.layers import map_chunks

if TYPE_CHECKING:
    from ape_model.network.geometry import Levels

__all__ = ["DeformableAttention", "Unprojected"]

GATHER_COST = 8
"""Cost of gathering one value over that of computing one in a matrix product, on a CPU."""


class Unprojected(NamedTuple):
    """Tokens whose value projection is left to whoever samples them: few queries read few."""

    tokens: Tensor
    """(B, N, C), zero where padded."""
    inside: Tensor
    """(B, N), 1 for tokens, 0 for padding: how much of the projection's bias they carry."""


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
        # With zero weights the bias alone is the offset: a fixed pattern that training bends.
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ray = torch.stack([angle.cos(), angle.sin()], dim=-1)
        ray = ray / ray.abs().amax(-1, keepdim=True)  # (heads, 2) on the unit square
        distance = torch.arange(1, self.points + 1).float()
        offsets = (ray[:, None, None] * distance[:, None]).expand(-1, self.n_levels, -1, -1)
        # (heads, L, P, 2), the order in which `forward` reads the output of the linear layer
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def project_value(self, tokens: Tensor) -> Tensor:
        """Project (B, N, C) tokens to the values that are sampled, those of padding included."""
        return map_chunks(lambda part: self.value_proj(tokens[:, part]), tokens)

    def prefers_late_projection(self, queries: int, tokens: int) -> bool:
        """Whether sampling all channels for each head costs less than projecting all tokens."""
        # Work per channel: four cells for each bilinear sample, C products for each token.
        samples = queries * self.heads * self.n_levels * self.points * 4
        return samples * GATHER_COST < tokens * self.value_proj.out_features

    def forward(
        self, query: Tensor, reference: Tensor, value: Tensor | Unprojected, levels: Levels
    ) -> Tensor:
        """Gather from projected values.

        Args:
            query: (B, Q, C), content plus position.
            reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes cx, cy, w, h, over each level's
                width and height; offsets are in cells for points, in half boxes for boxes.
            value: (B, N, C) from `project_value`, or tokens to be projected once sampled.
            levels: The token grids of the N values.

        Returns:
            (B, Q, C).
        """
        grid = (self.heads, self.n_levels, self.points)
        offsets = self.sampling_offsets(query).unflatten(-1, (*grid, 2))  # (B, Q, M, L, P, 2)
        # Levels and points on one axis: one softmax runs over both.
        logits = self.attention_weights(query).unflatten(-1, (self.heads, -1))  # (B, Q, M, L * P)
        exact = torch.promote_types(query.dtype, torch.float32)
        reference = reference.to(exact).contiguous()
        if isinstance(value, Unprojected):
            sampled = self._gather_then_project(value, reference, offsets, logits, levels)
        else:
            values = value.unflatten(-1, (self.heads, -1)).contiguous()  # (B, N, M, D)
            sampled = msda_fused(values, reference, offsets, logits, levels.shapes)
        return self.output_proj(sampled)

    def _gather_then_project(
        self, value: Unprojected, reference: Tensor, offsets: Tensor, logits: Tensor, levels: Levels
    ) -> Tensor:
        """Sampling is linear: project what was sampled, (B, Q, C), instead of all that might be.

        Every head becomes a query of its own, which samples all channels of the tokens.
        """
        B, Q, M = logits.shape[:3]
        reference = reference.repeat_interleave(M, dim=1)  # (B, Q * M, L, axes)
        # (B, Q * M, 1, ...): the kernel sees one head.
        offsets, logits = (t.flatten(1, 2).unsqueeze(2) for t in (offsets, logits))
        tokens, inside = value.tokens[:, :, None], value.inside[:, :, None, None]
        seen = msda_fused(tokens, reference, offsets, logits, levels.shapes).view(B, Q, M, -1)
        # What lies outside adds no bias either: the same samples of ones are the share inside.
        share = msda_fused(inside, reference, offsets, logits, levels.shapes).view(B, Q, M, 1)
        weight = self.value_proj.weight.unflatten(0, (M, -1))  # (M, D, C)
        projected = torch.einsum("bqmc,mdc->bqmd", seen, weight)
        return (projected + share * self.value_proj.bias.view(M, -1)).flatten(2)  # (B, Q, C)
