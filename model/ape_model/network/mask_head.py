"""Masks: a fine feature map, and its dot product with a vector per region (MaskFormer)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ape_model.network.layers import MLP, ConvNorm, pointwise

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MaskHead"]


class MaskHead(nn.Module):
    """The mask convolutions, and the vector of each region.

    Args:
        lateral: Channels of the map that it starts from.
        channels: C' of the mask feature.
        groups: Of every GroupNorm.
        embed_widths: Of the MLP from region states to mask vectors; the last one is C'.
    """

    def __init__(
        self, *, lateral: int, channels: int, groups: int, embed_widths: Sequence[int]
    ) -> None:
        super().__init__()
        self.lateral_conv = ConvNorm(lateral, channels, 1, nn.GroupNorm(groups, channels))
        self.output_conv = ConvNorm(channels, channels, 3, nn.GroupNorm(groups, channels))
        self.mask_conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.mask_embed = MLP(embed_widths)

    def feature(self, lateral: Tensor, memory_map: Tensor) -> Tensor:
        """Fuse the backbone's finest map with the encoded finest level.

        Args:
            lateral: (B, Cl, H, W), from the backbone, before the neck.
            memory_map: (B, C', H_0, W_0), level 0 of the memory; resized where it is coarser.

        Returns:
            (B, C', H, W).
        """
        fine = self.lateral_conv(lateral)
        coarse = memory_map
        if coarse.shape[-2:] != fine.shape[-2:]:  # of equal size, resizing changes nothing
            coarse = F.interpolate(
                coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False
            )
        return pointwise(self.mask_conv, F.relu(self.output_conv(fine + coarse)))

    def logits(self, hidden: Tensor, feature: Tensor) -> Tensor:
        """(..., K, C) region states on (..., C', H, W) features to (..., K, H, W) logits."""
        logits = self.mask_embed(hidden) @ feature.flatten(-2)  # (..., K, H * W)
        return logits.unflatten(-1, feature.shape[-2:])
