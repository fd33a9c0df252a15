"""Bi-directional vision-language fusion, folded to the text side.

As written (GLIP, APE section 3.2) the block projects every image token three times to a width of
2048. Attention is linear in each of these projections, so they can be moved to the few text
tokens instead, with the same result: keys become W_q^T k (one C-wide vector per head and text
token), values become W_out v. `ape_model.reference.modules` has the block as written.

Trap: the residual is taken from the LayerNorm-ed inputs, not from the inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ape_model.network.layers import token_chunks

if TYPE_CHECKING:
    from ape_model.config import ApeConfig

__all__ = ["BiAttention", "FusionBlock", "VisionLanguageFusion"]

GAMMA_INIT = 1 / 6  # one over the number of layers of the released models, as in GLIP
SCORE_BUDGET = 64 * 1024 * 1024
"""Attention scores held at once; more text tokens are done by fewer heads at a time."""


class BiAttention(nn.Module):
    """Cross attention both ways between image and text tokens, on shared scores."""

    def __init__(self, vision: int, text: int, *, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.dropout = 0.0
        """Part of the attention weights that is left out while it trains."""
        self.v_proj = nn.Linear(vision, width)
        self.l_proj = nn.Linear(text, width)
        self.values_v_proj = nn.Linear(vision, width)
        self.values_l_proj = nn.Linear(text, width)
        self.out_v_proj = nn.Linear(width, vision)
        self.out_l_proj = nn.Linear(width, text)
        for linear in (self.v_proj, self.l_proj, self.values_v_proj, self.values_l_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.out_v_proj, self.out_l_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def by_head(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, heads, T, head_dim)."""
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)

    def folded_keys(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Text keys with the query projection of the image folded in.

        Args:
            text: (B, T, Dl), normalised.

        Returns:
            (B, heads, T, C) keys and (B, heads, T, 1) biases: an image token v scores
            `keys @ v + bias`.
        """
        # q . k = (W v + b) . k = v . (W^T k) + b . k, for each head with its rows of W and b.
        keys = self.by_head(self.l_proj(text)) * self.head_dim**-0.5  # (B, heads, T, d)
        weight = self.v_proj.weight.unflatten(0, (self.heads, self.head_dim))  # (heads, d, C)
        bias = self.v_proj.bias.view(self.heads, self.head_dim, 1)  # (heads, d, 1)
        return keys @ weight, keys @ bias

    def folded_values(self, text: Tensor) -> Tensor:
        """(B, T, Dl) text to (B, heads, T, C) values, output projection folded in."""
        # out_v_proj sums over heads: each takes its columns, and only the bias is left for later.
        values = self.by_head(self.values_l_proj(text))  # (B, heads, T, d)
        weight = self.out_v_proj.weight.unflatten(1, (self.heads, self.head_dim))  # (C, heads, d)
        return values @ weight.permute(1, 2, 0)  # (heads, d, C) on the right

    def _pool(self, pooled: Tensor, mass: Tensor | float) -> Tensor:
        """(B, heads, T, C) attended image means to the (B, T, Dl) update of the text.

        Args:
            pooled: Sums of image tokens by attention weights.
            mass: (B, heads, T, 1), what the weights of each sum up to: 1 without dropout.
        """
        # A sum of projections is the projection of the sum, and the bias as often as its weights.
        weight = self.values_v_proj.weight.unflatten(0, (self.heads, self.head_dim))  # (h, d, C)
        bias = self.values_v_proj.bias.view(self.heads, 1, self.head_dim)
        return self.out_l_proj((pooled @ weight.mT + bias * mass).transpose(1, 2).flatten(2))

    def forward(self, vision: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Updates for both sides.

        Args:
            vision: (B, N, C), normalised.
            text: (B, T, Dl), normalised.

        Returns:
            (B, N, C) and (B, T, Dl).
        """
        keys, bias = self.folded_keys(text)
        values = self.folded_values(text)
        T, N = text.shape[1], vision.shape[1]
        step = max(1, min(self.heads, SCORE_BUDGET // (vision.shape[0] * T * N)))
        dropout = self.dropout if self.training else 0.0
        vision_update: Tensor = self.out_v_proj.bias  # (C,), grows to (B, N, C)
        pooled, masses = [], []
        for first in range(0, self.heads, step):
            heads = slice(first, first + step)
            # The image is not projected: all heads of a step are one product with the same tokens.
            scores = _scores(keys[:, heads].flatten(1, 2), vision).unflatten(1, (-1, T))
            scores = scores + bias[:, heads]  # (B, heads', T, N)
            weights = scores.softmax(-1)
            if dropout:
                weights = F.dropout(weights, dropout)
                masses.append(weights.sum(-1, keepdim=True))
            pooled.append(weights.flatten(1, 2) @ vision)  # (B, heads' * T, C)
            vision_update = vision_update + _to_vision(scores, values[:, heads], dropout)
        pools = torch.cat(pooled, dim=1).unflatten(1, (self.heads, T))  # (B, heads, T, C)
        return vision_update, self._pool(pools, torch.cat(masses, dim=1) if masses else 1.0)


def _scores(keys: Tensor, vision: Tensor) -> Tensor:
    """(B, K, C) keys times (B, N, C) image tokens: (B, K, N).

    Transpose after the matmul: before it, a bf16 CPU kernel copies all tokens.
    """
    steps = [(vision[:, step] @ keys.mT).mT for step in token_chunks(vision)]
    return torch.cat(steps, dim=2)


def _to_vision(scores: Tensor, values: Tensor, dropout: float) -> Tensor:
    """(B, h, T, N) scores and (B, h, T, C) values to (B, N, C), summed over heads."""
    if scores.shape[2] == 1 and not dropout:  # one text token takes the whole softmax
        return values.sum(1)
    weights = scores.softmax(2)
    if dropout:
        weights = F.dropout(weights, dropout)
    # Heads and text tokens as one axis: the product over it also sums the heads.
    return weights.flatten(1, 2).mT @ values.flatten(1, 2)


class FusionBlock(nn.Module):
    """Norms, bi-attention and gated residuals."""

    def __init__(self, vision: int, text: int, *, width: int, heads: int) -> None:
        super().__init__()
        self.layer_norm_v = nn.LayerNorm(vision)
        self.layer_norm_l = nn.LayerNorm(text)
        self.attn = BiAttention(vision, text, width=width, heads=heads)
        self.gamma_v = nn.Parameter(torch.full((vision,), GAMMA_INIT))
        self.gamma_l = nn.Parameter(torch.full((text,), GAMMA_INIT))

    def forward(self, vision: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse (B, N, C) image tokens with (B, T, Dl) text tokens."""
        # The norms replace the inputs: what is added to below is normalised (official code).
        vision, text = self.layer_norm_v(vision), self.layer_norm_l(text)
        vision_update, text_update = self.attn(vision, text)
        return vision + self.gamma_v * vision_update, text + self.gamma_l * text_update


class VisionLanguageFusion(nn.Module):
    """The fusion block of one encoder layer under its official name."""

    def __init__(self, config: ApeConfig) -> None:
        super().__init__()
        self.b_attn = FusionBlock(
            config.hidden,
            config.text_width,
            width=config.fusion_width,
            heads=config.fusion_heads,
        )

    def forward(self, vision: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """As `FusionBlock`."""
        return self.b_attn(vision, text)
