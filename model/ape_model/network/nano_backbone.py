"""Nano's backbone: a light convolutional stem, EVA-02 blocks at stride 16, a small pyramid.

What differs from the released models' backbones: convolutions give small things their detail
for little work, rope turns by whole tokens instead of stretched positions, so that images of any
size and shape look alike to a token, and there is no absolute position table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ape_model.network.layers import pointwise
from ape_model.network.pyramid import BackboneMaps
from ape_model.network.rope import Rope, rotate, table_on
from ape_model.network.vit import Attention, Block, SwiGLU

if TYPE_CHECKING:
    from ape_model.config import NanoConfig

__all__ = ["NanoBackbone", "TokenRope"]

ROPE_SIDE = 64
"""Sides of token grids that the rope's table covers: images of up to 1024 pixels."""


class TokenRope(Rope):
    """Rope whose positions are token numbers, 0, 1, 2 ..., for every grid."""

    def __init__(self, head_dim: int) -> None:
        super().__init__(ROPE_SIDE, head_dim, ROPE_SIDE)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Turn (B, heads, rows * cols, D) queries or keys by their position in `grid`."""
        if max(grid) > self.side:
            raise ValueError(f"a grid of {grid} tokens is over the rope's {self.side}")
        kind = self.freqs_cos.dtype, self.freqs_cos.device
        # Token (r, c) has the same angles in every grid: a corner of the one table.
        whole = (self.side, self.side)
        return rotate(x, *table_on(grid, self.head_dim, self.reference, *kind, whole))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(inplace=True),
    )


class _Residual(nn.Module):
    """Two 3x3 convolutions and the way round them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels, 3)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        norm = nn.BatchNorm2d(channels)
        nn.init.constant_(norm.weight, 0.2)  # a new block starts close to the identity
        self.norm: nn.Module = norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.silu(x + self.norm(self.second(self.first(x))))

    def fold_norms(self) -> None:
        _fold(self.first)
        assert isinstance(self.norm, nn.BatchNorm2d)  # noqa: S101 (for the type checker)
        self.second = fuse_conv_bn_eval(self.second, self.norm)
        self.norm = nn.Identity()


def _fold(stage: nn.Sequential) -> None:
    """Fold the norms of a stage of `_conv` and `_Residual` blocks, whichever it holds."""
    for block in stage:
        if isinstance(block, _Residual):
            block.fold_norms()
        elif isinstance(block, nn.Sequential):
            _fold(block)
    if isinstance(stage[0], nn.Conv2d) and isinstance(stage[1], nn.BatchNorm2d):
        stage[0], stage[1] = fuse_conv_bn_eval(stage[0], stage[1]), nn.Identity()


class NanoBackbone(nn.Module):
    """Pixels to maps of strides 8, 16 and 32, and a lateral map of stride 4.

    Args:
        config: Sizes of nano.
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        c2, c4, c8 = config.stem
        width, hidden = config.ape.backbone.width, config.ape.hidden
        self.stem4 = nn.Sequential(_conv(3, c2, 3, 2), _conv(c2, c4, 3, 2), _Residual(c4))
        self.stem8 = nn.Sequential(_conv(c4, c8, 3, 2), _Residual(c8))
        self.stem16 = _conv(c8, width, 3, 2)
        vit = config.ape.backbone
        rope = TokenRope(width // vit.heads)
        self.blocks = nn.ModuleList(
            Block(
                width,
                Attention(width, vit.heads, rope),
                SwiGLU(width, int(width * vit.mlp_ratio)),
                window=0,
            )
            for _ in range(vit.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.side8 = nn.Conv2d(c8, hidden, 1)
        self.side16 = nn.Conv2d(width, hidden, 1)
        self.down32 = nn.Conv2d(hidden, hidden, 3, 2, 1)

    def fold_norms(self) -> NanoBackbone:
        """Multiply the batch norms into the convolutions before them, for inference; returns self.

        The result is the same within rounding; what is folded cannot be trained or saved again.
        """
        for stage in (self.stem4, self.stem8, self.stem16):
            _fold(stage)
        # As the images: else every call would copy the weights into this layout.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def forward(self, images: Tensor) -> BackboneMaps:
        """(B, 3, H, W) normalised pixels, H and W multiples of 32 -> levels 8, 16, 32."""
        fine = self.stem4(images.contiguous(memory_format=torch.channels_last))  # (B, 48, H/4, W/4)
        c8 = self.stem8(fine)  # (B, 96, H/8, W/8)
        x = self.stem16(c8).permute(0, 2, 3, 1)  # (B, H/16, W/16, C)
        for block in self.blocks:
            x = block(x)
        # Stride 8 gets its detail from the stem and its meaning from the blocks at stride 16.
        p16 = pointwise(self.side16, self.norm(x).permute(0, 3, 1, 2))
        p8 = pointwise(self.side8, c8) + F.interpolate(p16, size=c8.shape[-2:], mode="nearest")
        return BackboneMaps(levels=(p8, p16, self.down32(p16)), lateral=fine)
