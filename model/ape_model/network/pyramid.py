"""One map of stride 16 to maps of strides 4..64 (ViTDet's simple feature pyramid), and the neck."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ape_model.network.layers import ConvNorm, LayerNorm2d
from ape_model.network.vit import ViT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.config import VitConfig

__all__ = ["BackboneMaps", "ChannelMapper", "SimpleFeaturePyramid"]


class BackboneMaps(NamedTuple):
    """What any backbone hands over."""

    levels: tuple[Tensor, ...]
    """Finest first, each (B, hidden, H_l, W_l)."""
    lateral: Tensor
    """The map that the mask head starts from, (B, hidden, H, W), before any neck."""


def _smooth(in_channels: int, channels: int) -> tuple[ConvNorm, ConvNorm]:
    """What ends every level: 1x1 to the wanted channels, 3x3, each with its norm."""
    return (
        ConvNorm(in_channels, channels, 1, LayerNorm2d(channels)),
        ConvNorm(channels, channels, 3, LayerNorm2d(channels)),
    )


def _double(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)


class SimpleFeaturePyramid(nn.Module):
    """A ViT and the five maps p2..p6 made from its last one."""

    def __init__(self, config: VitConfig, *, canvas: int, channels: int) -> None:
        super().__init__()
        width = config.width
        self.net = ViT(config, canvas)
        # Positions in these lists are part of the official keys: simfp_2.4.weight ...
        self.simfp_2 = nn.Sequential(
            _double(width, width // 2),
            LayerNorm2d(width // 2),
            nn.GELU(),
            _double(width // 2, width // 4),
            *_smooth(width // 4, channels),
        )
        self.simfp_3 = nn.Sequential(_double(width, width // 2), *_smooth(width // 2, channels))
        self.simfp_4 = nn.Sequential(*_smooth(width, channels))
        self.simfp_5 = nn.Sequential(nn.MaxPool2d(2), *_smooth(width, channels))

    def forward(self, images: Tensor) -> BackboneMaps:
        """(B, 3, H, W) normalised pixels -> p2, p3, p4, p5, p6 of strides 4, 8, 16, 32, 64."""
        tokens = self.net(images)
        p2, p3, p4, p5 = (
            stage(tokens) for stage in (self.simfp_2, self.simfp_3, self.simfp_4, self.simfp_5)
        )
        # A kernel of one: every second pixel, as detectron2 makes its last level.
        p6 = F.max_pool2d(p5, kernel_size=1, stride=2)
        return BackboneMaps(levels=(p2, p3, p4, p5, p6), lateral=p2)


class _MappedLevel(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=1)
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ChannelMapper(nn.Module):
    """The neck: a 1x1 convolution and GroupNorm for every level."""

    def __init__(self, *, levels: int, channels: int, groups: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_MappedLevel(channels, groups) for _ in range(levels))

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of (B, C, H_l, W_l) to maps of the same shapes."""
        return tuple(conv(level) for conv, level in zip(self.convs, levels, strict=True))
