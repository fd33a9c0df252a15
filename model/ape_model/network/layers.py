"""Small layers that several modules share, under their official key names."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "MLP",
    "ConvNorm",
    "FeedForward",
    "LayerNorm2d",
    "SelfAttention",
    "map_chunks",
    "pointwise",
    "token_chunks",
]

FFN_CHUNK = 8192
"""Tokens per step of the encoder's feed-forward net: its hidden activations stay small."""
CPU_CHUNK = 2048
"""Tokens per step on a CPU: what a step makes stays in the cache and in memory already mapped.
Tensors of all 87,296 tokens are mapped and zeroed by the system page by page, every time."""


def token_chunks(tokens: Tensor) -> list[slice]:
    """Steps in which the (B, N, C) tokens are best gone through: one, but for many on a CPU."""
    N = tokens.shape[1]
    step = CPU_CHUNK if tokens.device.type == "cpu" else N
    return [slice(start, start + step) for start in range(0, N, step)]


def map_chunks(compute: Callable[[slice], Tensor], tokens: Tensor) -> Tensor:
    """(B, N, C') of what is computed of each of the (B, N, C) tokens by itself.

    Args:
        compute: (B, n, C') of a step's tokens.
        tokens: That are gone through.
    """
    steps = token_chunks(tokens)
    first = compute(steps[0])
    if len(steps) == 1:
        return first
    if torch.is_grad_enabled():  # a written slice costs the backward pass a copy of the whole
        return torch.cat([first, *map(compute, steps[1:])], dim=1)
    whole = first.new_empty((*tokens.shape[:2], first.shape[2]))
    whole[:, steps[0]] = first
    for step in steps[1:]:
        whole[:, step] = compute(step)
    return whole


def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution of a (B, C, H, W) map: where its channels lie side by side, no copy."""
    # torch's own form copies a channels-last map to the other layout and back.
    if x.device.type != "cpu" or x.is_contiguous():
        return F.conv2d(x, conv.weight, conv.bias)
    mixed = F.linear(x.permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias)  # (B, H, W, C')
    return mixed.permute(0, 3, 1, 2)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of every pixel of a (B, C, H, W) map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNorm(nn.Conv2d):
    """A bias-free convolution of odd kernel, same size out, with its norm inside it (`.norm`)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, norm: nn.Module) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W), normalised."""
        if self.kernel_size == (1, 1):
            return self.norm(pointwise(self, x))
        return self.norm(super().forward(x))


class MLP(nn.Module):
    """Linear layers with ReLU between them; the box and mask heads."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(wide, narrow) for wide, narrow in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) -> (..., widths[-1])."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """Two linear layers with ReLU, and the residual."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True)),
            nn.Linear(hidden, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C), in chunks of tokens."""
        parts = [part + self.layers(part) for part in x.split(FFN_CHUNK, dim=1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class SelfAttention(nn.Module):
    """Multi-head attention with one packed input matrix.

    Args:
        width: C, channels of a token.
        heads: Attention heads; they divide the width.
        causal: A token attends only to itself and the tokens before it.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query_key: Tensor, value: Tensor) -> Tensor:
        """Attend among Q tokens; positions enter queries and keys, not values.

        Args:
            query_key: (B, Q, C), content plus position.
            value: (B, Q, C), content.

        Returns:
            (B, Q, C).
        """
        # Rows of the packed matrix are q, k, v: the first two see positions, the third does not.
        C = value.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        q, k = F.linear(query_key, weight[: 2 * C], bias[: 2 * C]).chunk(2, dim=-1)
        v = F.linear(value, weight[2 * C :], bias[2 * C :])
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        # (B, heads, Q, C / heads)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))
