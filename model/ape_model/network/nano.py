"""APE-Nano: the modules of the released models on a light backbone.

What differs from the released models: one coordinate unit is a number of pixels and not the side
of the image, so that boxes, anchors and position embeddings mean the same in images of every size
and shape; the mask feature is narrow; the text tower is its own (`ape_model.text.nano_tower`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ape_model.network.ape import Ape
from ape_model.network.geometry import Geometry, Levels, batch_geometry
from ape_model.network.layers import pointwise
from ape_model.network.mask_head import MaskHead
from ape_model.network.nano_backbone import NanoBackbone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.config import NanoConfig

__all__ = ["NanoMaskHead", "PixelCoordinates", "build_nano"]

STRIDES = (8, 16, 32)
"""Pixels of the canvas to a token, of each level."""
LARGEST_ANCHOR = 0.98
"""Anchors stay below one unit: their logits must be finite."""


@lru_cache(maxsize=16)
def _unit_anchors(levels: Levels, unit: int, anchor_size: float) -> tuple[Tensor, Tensor]:
    """Centres (N, 2) and logits of anchors (N, 4), in units."""
    centers, sides = [], []
    for level, ((rows, cols), stride) in enumerate(zip(levels.shapes, STRIDES, strict=True)):
        # Pixels of a cell's centre: (cell + 1/2) * stride, here over the unit.
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(cols) + 0.5, indexing="ij")
        centers.append(torch.stack([x, y], dim=-1).flatten(0, 1) * (stride / unit))
        side = min(anchor_size * 2**level, LARGEST_ANCHOR)
        sides.append(torch.full((rows * cols, 2), side))
    center = torch.cat(centers)
    # A centre at the far border has no finite logit: refinement starts just inside.
    anchors = torch.cat([center, torch.cat(sides)], dim=-1).clamp(max=1 - 1e-3)
    return center, torch.log(anchors / (1 - anchors))


def _pixel_geometry(plain: Geometry, config: NanoConfig, canvas: tuple[int, int]) -> Geometry:
    """Express the geometry of a batch in pixels instead of sides of the image.

    Args:
        plain: Geometry of the same batch in sides of the image.
        config: Of the model.
        canvas: Height and width of the padded images, pixels.

    Returns:
        The geometry whose coordinates (anchors, references, positions) are pixels over
        `config.unit_on(canvas)`, and whose valid ratios turn them into shares of each level.
    """
    device = plain.padded.device
    B = len(plain.padded)
    unit = config.unit_on(canvas)
    anchor_size = config.ape.anchor_size * config.unit / unit
    with torch.inference_mode(mode=False), torch.no_grad():
        center, logits = _unit_anchors(plain.levels, unit, anchor_size)
        # Turns units into shares of the canvas; as `valid_ratios` it turns boxes of queries too.
        ratio = torch.tensor([unit / canvas[1], unit / canvas[0]], device=device)  # (x, y)
        center = center.to(device)
        share = (center * ratio)[:, None].expand(-1, len(STRIDES), -1)  # (N, L, 2)
        # Sines have no end: positions are pixels over the same number on every canvas.
        angle = torch.cat([center, center], dim=-1) * (torch.pi * unit / config.unit)  # (N, 4)
        return replace(
            plain,
            valid_ratios=ratio.expand(B, len(STRIDES), 2),
            reference=share.expand(B, -1, -1, -1),
            anchors=logits.to(device).expand(B, -1, -1),
            invalid=plain.padded,
            position=_sine_octaves(angle, config.ape.hidden).expand(B, -1, -1),
        )


def _sine_octaves(angle: Tensor, channels: int) -> Tensor:
    """(N, 4) angles, radians, to (N, channels): sines and cosines of octaves."""
    # Four frequencies per octave: each is 2^(1/4) of the one before.
    octaves = 2.0 ** torch.arange(channels // 4, device=angle.device).div(4)
    scaled = angle[:, :2, None] * octaves  # (N, 2, channels / 4)
    return torch.cat([scaled.sin(), scaled.cos()], dim=-1).flatten(1)


@lru_cache(maxsize=8)
def _cached_geometry(
    config: NanoConfig,
    levels: Levels,
    sizes: tuple[tuple[int, int], ...],
    canvas: tuple[int, int],
    device: torch.device,
) -> Geometry:
    ape = config.ape
    plain = batch_geometry(levels, sizes, canvas, ape.hidden, ape.anchor_size, device)
    return _pixel_geometry(plain, config, canvas)


@dataclass(frozen=True, slots=True)
class PixelCoordinates:
    """The unit of nano: a number of pixels, the same for images of every size."""

    config: NanoConfig
    """Its `unit_on` gives that number."""

    def geometry(
        self,
        levels: Levels,
        sizes: tuple[tuple[int, int], ...],
        canvas: tuple[int, int],
        device: torch.device,
    ) -> Geometry:
        """Geometry of a batch; cached, because the frames of a stream are all of one size."""
        return _cached_geometry(self.config, levels, sizes, canvas, device)

    def to_shares(
        self, boxes: Tensor, sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]
    ) -> Tensor:
        """(..., B, Q, 4) boxes in pixels over the unit to shares of each image's sides."""
        unit = self.config.unit_on(canvas)
        # Filled where the boxes are: a copy from the host would wait, and break a CUDA graph.
        shares = [boxes.new_full((), unit / side) for h, w in sizes for side in (w, h)]
        return boxes * torch.stack(shares).view(-1, 1, 2).repeat(1, 1, 2)

    def from_shares(
        self, boxes: Tensor, sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]
    ) -> Tensor:
        """Undo `to_shares`."""
        sides = torch.tensor([(w, h, w, h) for h, w in sizes], device=boxes.device)
        return boxes * (sides[:, None] / self.config.unit_on(canvas))


class NanoMaskHead(MaskHead):
    """A narrow mask head: stem map of stride 4 plus memory of stride 8.

    Args:
        config: Sizes of nano.
    """

    def __init__(self, config: NanoConfig) -> None:
        hidden, narrow = config.ape.hidden, config.mask_channels
        super().__init__(
            lateral=config.stem[1],
            channels=narrow,
            groups=config.ape.norm_groups,
            embed_widths=(hidden, hidden, narrow),
        )
        self.coarse_conv = nn.Conv2d(hidden, narrow, 1)
        self.mask_bias = nn.Parameter(torch.zeros(1))

    def feature(self, lateral: Tensor, memory_map: Tensor) -> Tensor:
        """(B, 48, H/4, W/4) stem map and (B, C, H/8, W/8) memory to (B, M, H/4, W/4)."""
        return super().feature(lateral, pointwise(self.coarse_conv, memory_map))

    def logits(self, hidden: Tensor, feature: Tensor) -> Tensor:
        """(..., K, C) states on (..., M, H, W) features to (..., K, H, W) logits."""
        return super().logits(hidden, feature) + self.mask_bias


def build_nano(config: NanoConfig) -> Ape:
    """Make the network of nano, untrained."""
    network = Ape(
        config.ape,
        backbone=NanoBackbone(config),
        mask_head=NanoMaskHead(config),
        coordinates=PixelCoordinates(config),
    )
    for align in network.transformer.decoder.aligns:
        # Regions and prompts get a gradient from the first step on.
        nn.init.orthogonal_(align.dot_product_projection_text.weight)
        nn.init.constant_(align.log_scale, -0.5)
    return network
