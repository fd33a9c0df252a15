"""The official mask prompt: regions are proposed only inside a given mask."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

if TYPE_CHECKING:
    from ape_model.network.ape import ImageFeatures

__all__ = ["restrict_proposals"]


def restrict_proposals(features: ImageFeatures, region: Tensor) -> ImageFeatures:
    """Features whose tokens outside a region make no proposal.

    Args:
        features: Of `Ape.encode_image`.
        region: (B, H, W) bool over the canvas; all False means everywhere.
    """
    if not bool(region.any()):
        return features
    geometry = features.geometry
    # A cell is inside where bilinear resize leaves anything of the region.
    inside = [
        F.interpolate(region[None].float(), size=shape, mode="bilinear")[0].flatten(1) > 0
        for shape in geometry.levels.shapes
    ]
    outside = ~torch.cat(inside, dim=1)  # (B, N)
    restricted = replace(
        geometry,
        # As of padding: an anchor at +inf never becomes a box, its token is scored as invalid.
        invalid=geometry.invalid | outside,
        anchors=geometry.anchors.masked_fill(outside[..., None], torch.inf),
    )
    return replace(features, geometry=restricted)
