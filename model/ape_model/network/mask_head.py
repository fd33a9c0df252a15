"""Masks: a fine feature map, and its dot product with a vector per region (MaskFormer)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ape_model.network.layers import MLP, ConvNorm

if TYPE_CHECKING:
    from ape_model.config import ApeConfig

__all__ = ["MaskHead"]


class MaskHead(nn.Module):
    """The mask convolutions and the mask vector, which official checkpoints keep at top level."""

    def __init__(self, config: ApeConfig) -> None:
        super().__init__()
        width, groups = config.hidden, config.norm_groups
        self.lateral_conv = ConvNorm(width, width, 1, nn.GroupNorm(groups, width))
        self.output_conv = ConvNorm(width, width, 3, nn.GroupNorm(groups, width))
        self.mask_conv = nn.Conv2d(width, width, 1, bias=False)
        self.mask_embed = MLP((width, width, width, width))

    def mask_feature(self, lateral: Tensor, memory_map: Tensor) -> Tensor:
        """Fuse the backbone's finest map with the encoded finest level.

        Args:
            lateral: (B, C, H, W), from the backbone, before the neck.
            memory_map: (B, C, H_0, W_0), level 0 of the memory; resized where it is coarser.

        Returns:
            (B, C, H, W).
        """
        fine = self.lateral_conv(lateral)
        coarse = memory_map
        if coarse.shape[-2:] != fine.shape[-2:]:  # of equal size, resizing changes nothing
            coarse = F.interpolate(
                coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False
            )
        feature: Tensor = self.mask_conv(F.relu(self.output_conv(fine + coarse)))
        return feature

    def mask_logits(self, hidden: Tensor, feature: Tensor) -> Tensor:
        """(K, C) region states on one image's (C, H, W) feature to (K, H, W) logits."""
        logits: Tensor = self.mask_embed(hidden) @ feature.flatten(1)
        return logits.unflatten(-1, feature.shape[-2:])
