"""The EVA-02 vision transformer in its three official flavours.

What is unusual: windows alternate with global blocks; rope turns queries and keys, and windows
use window-local positions; keys have no bias; padding tokens of a window are keys like any other
(a zero logit) and carry the value bias; there is no class token and no final norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ape_model.network.rope import Rope

if TYPE_CHECKING:
    from ape_model.config import VitConfig

__all__ = [
    "Attention",
    "Block",
    "PackedAttention",
    "PackedSwiGLU",
    "PatchEmbed",
    "SwiGLU",
    "ViT",
    "join_windows",
    "resize_positions",
    "split_windows",
]

NORM_EPS = 1e-6  # of all norms of EVA-02; torch has 1e-5


class Attention(nn.Module):
    """Multi-head attention with rope; separate q, k, v matrices, biases on q and v alone."""

    def __init__(self, width: int, heads: int, rope: Rope, *, inner_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self._make_projections(width)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.rope = rope
        if inner_norm:
            self.inner_attn_ln = nn.LayerNorm(width, eps=NORM_EPS)
        self.inner_norm = inner_norm
        self.proj = nn.Linear(width, width)

    def _make_projections(self, width: int) -> None:
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, C) tokens to (B, T, C) queries, keys and values."""
        q = F.linear(x, self.q_proj.weight, self.q_bias)
        v = F.linear(x, self.v_proj.weight, self.v_bias)
        return q, self.k_proj(x), v

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Attend among the T = rows * cols tokens of one grid: (B, T, C) -> (B, T, C)."""
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.project(x))
        mixed = F.scaled_dot_product_attention(self.rope(q, grid), self.rope(k, grid), v)
        mixed = mixed.transpose(1, 2).flatten(2)  # (B, T, C), heads side by side
        if self.inner_norm:
            mixed = self.inner_attn_ln(mixed)
        return self.proj(mixed)


class PackedAttention(Attention):
    """The same with one q-k-v matrix."""

    def _make_projections(self, width: int) -> None:
        self.qkv = nn.Linear(width, 3 * width, bias=False)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, C) tokens to (B, T, C) queries, keys and values."""
        # A key bias shifts all logits of a query alike, which the softmax ignores: there is none.
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = F.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        return q, k, v


class SwiGLU(nn.Module):
    """w3(LN(silu(w1 x) * w2 x))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden)
        self.w2 = nn.Linear(width, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class PackedSwiGLU(nn.Module):
    """w3(silu(gate) * value), gate and value from one matrix in this order."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


def split_windows(x: Tensor, window: int) -> Tensor:
    """Zero-pad a (B, H, W, C) map right and bottom, cut it to (B * n, window ** 2, C)."""
    B, H, W, C = x.shape
    # Last axis first: channels, then columns, then rows.
    x = F.pad(x, (0, 0, 0, -W % window, 0, -H % window))
    rows, cols = x.shape[1] // window, x.shape[2] // window
    x = x.view(B, rows, window, cols, window, C).transpose(2, 3)  # (B, rows, cols, w, w, C)
    return x.reshape(B * rows * cols, window * window, C)


def join_windows(x: Tensor, window: int, size: tuple[int, int]) -> Tensor:
    """Undo `split_windows`: (B * n, window ** 2, C) -> (B, H, W, C), padding cropped."""
    H, W = size
    rows, cols = -(-H // window), -(-W // window)
    x = x.view(-1, rows, cols, window, window, x.shape[-1]).transpose(2, 3)
    return x.reshape(-1, rows * window, cols * window, x.shape[-1])[:, :H, :W]


class Block(nn.Module):
    """Pre-norm attention and SwiGLU, each with its residual."""

    def __init__(self, width: int, attn: Attention, mlp: nn.Module, window: int) -> None:
        super().__init__()
        self.window = window
        """Side of the windows, 0 for global attention."""
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = x + self._attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: Tensor) -> Tensor:
        H, W = x.shape[1:3]
        if not self.window:
            attended: Tensor = self.attn(x.flatten(1, 2), (H, W))
            return attended.unflatten(1, (H, W))
        # After the norm, so padding is zero vectors: a zero logit as keys, the bias as values.
        windows = self.attn(split_windows(x, self.window), (self.window, self.window))
        return join_windows(windows, self.window, (H, W))


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H / patch, W / patch, C)."""
        return self.proj(images).permute(0, 2, 3, 1)


def resize_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a stored (1, 1 + side ** 2, C) table to (1, H, W, C), dropping its class row."""
    # The table is that of pretraining, at another size; row 0 belongs to the class token.
    side = round((table.shape[1] - 1) ** 0.5)
    square = table[:, 1:].unflatten(1, (side, side))
    if grid == (side, side):
        return square
    resized = F.interpolate(
        square.permute(0, 3, 1, 2), size=grid, mode="bicubic", align_corners=False
    )
    return resized.permute(0, 2, 3, 1)


class ViT(nn.Module):
    """Images to one map of stride `patch`."""

    def __init__(self, config: VitConfig, canvas: int) -> None:
        super().__init__()
        width, head_dim = config.width, config.width // config.heads
        self.patch_embed = PatchEmbed(config.patch, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.pretrain_grid**2, width))
        # One table for all windows: positions in a window start at its own corner.
        self.rope_win = Rope(config.window, head_dim, config.rope_grid)
        self.rope_glb = Rope(canvas // config.patch, head_dim, config.rope_grid)
        self.blocks = nn.ModuleList(
            self._make_block(config, windowed=index in config.window_blocks)
            for index in range(config.depth)
        )
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def _make_block(self, config: VitConfig, *, windowed: bool) -> Block:
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        rope = self.rope_win if windowed else self.rope_glb
        attention = PackedAttention if config.packed else Attention
        mlp = PackedSwiGLU if config.packed else SwiGLU
        return Block(
            width,
            attention(width, config.heads, rope, inner_norm=config.inner_norm),
            mlp(width, hidden),
            window=config.window if windowed else 0,
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, C, H / patch, W / patch)."""
        x = self.patch_embed(images)
        x = x + resize_positions(self.pos_embed, (x.shape[1], x.shape[2]))
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 3, 1, 2)
