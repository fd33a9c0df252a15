"""From a configuration to the module that turns images into maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ape_model.network.pyramid import SimpleFeaturePyramid

if TYPE_CHECKING:
    from torch import nn

    from ape_model.config import ApeConfig

__all__ = ["build_backbone"]


def build_backbone(config: ApeConfig) -> nn.Module:
    """Make the backbone that `config.backbone` describes; it returns `BackboneMaps`."""
    return SimpleFeaturePyramid(config.backbone, canvas=config.canvas, channels=config.hidden)
