"""APE-Nano: the modules of the released models on a light backbone.

What is unusual beside `Ape`: one coordinate unit is a number of pixels and not the side of the
picture, so that boxes, anchors and place embeddings mean the same in pictures of every size and
shape; the mask feature is narrow; there is a text tower of its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ape_model.network.ape import Ape, ImageFeatures, PromptFeatures, RawOutputs
from ape_model.network.decoder import Decoded
from ape_model.network.geometry import Geometry, Levels, geometry
from ape_model.network.layers import MLP, ConvNorm
from ape_model.network.nano_backbone import NanoBackbone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.nano_config import NanoConfig

__all__ = ["Nano", "pixel_geometry"]

STRIDES = (8, 16, 32)
LARGEST_ANCHOR = 0.98
"""Anchors stay below one unit: their logits must be finite."""


@lru_cache(maxsize=16)
def _unit_anchors(levels: Levels, unit: int, anchor_size: float) -> tuple[Tensor, Tensor]:
    """Centres (N, 2) and logits of anchors (N, 4), in units."""
    centers, sides = [], []
    for level, ((rows, cols), stride) in enumerate(zip(levels.shapes, STRIDES, strict=True)):
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(cols) + 0.5, indexing="ij")
        centers.append(torch.stack([x, y], dim=-1).flatten(0, 1) * (stride / unit))
        side = min(anchor_size * 2**level, LARGEST_ANCHOR)
        sides.append(torch.full((rows * cols, 2), side))
    center = torch.cat(centers)
    # Pictures beyond one unit: a centre has no logit there; refinement starts from the rim.
    anchors = torch.cat([center, torch.cat(sides)], dim=-1).clamp(max=1 - 1e-3)
    return center, torch.log(anchors / (1 - anchors))


def pixel_geometry(plain: Geometry, config: NanoConfig, canvas: tuple[int, int]) -> Geometry:
    """Express a batch's geometry in units of pixels instead of sides of the picture.

    Args:
        plain: geometry of the same batch in sides of the picture.
        config: of the model.
        canvas: height and width of the padded pictures, pixels.

    Returns:
        the geometry whose coordinates (anchors, references, places) are pixels over `unit`, and
        whose valid ratios turn them into shares of each level.
    """
    device = plain.padded.device
    B = len(plain.padded)
    unit = config.unit_on(canvas)
    anchor_size = config.ape.anchor_size * config.unit / unit
    with torch.inference_mode(mode=False), torch.no_grad():
        center, logits = _unit_anchors(plain.levels, unit, anchor_size)
        ratio = torch.tensor([unit / canvas[1], unit / canvas[0]], device=device)
        center = center.to(device)
        share = (center * ratio)[:, None].expand(-1, len(STRIDES), -1)
        # Positions stay pixels over the same number on every canvas; sines have no end.
        angle = torch.cat([center, center], dim=-1) * (torch.pi * unit / config.unit)
        return replace(
            plain,
            valid_ratios=ratio.expand(B, len(STRIDES), 2),
            reference=share.expand(B, -1, -1, -1),
            anchors=logits.to(device).expand(B, -1, -1),
            invalid=plain.padded,
            position=_place(angle, config.ape.hidden).expand(B, -1, -1),
        )


def _place(angle: Tensor, channels: int) -> Tensor:
    """(N, 4) angles, radians, to (N, channels): sines and cosines of octaves."""
    octaves = 2.0 ** torch.arange(channels // 4, device=angle.device).div(4)
    scaled = angle[:, :2, None] * octaves  # (N, 2, channels / 4)
    return torch.cat([scaled.sin(), scaled.cos()], dim=-1).flatten(1)


class Nano(Ape):
    """The nano network; its vision side is trained, its prompts come from `NanoText`.

    Args:
        config: its sizes.
    """

    def __init__(self, config: NanoConfig) -> None:
        super().__init__(config.ape, NanoBackbone(config))
        self.nano = config
        hidden, narrow = config.ape.hidden, config.mask_channels
        groups = config.ape.norm_groups
        self.lateral_conv = ConvNorm(config.stem[1], narrow, 1, nn.GroupNorm(groups, narrow))
        self.coarse_conv = nn.Conv2d(hidden, narrow, 1)
        self.output_conv = ConvNorm(narrow, narrow, 3, nn.GroupNorm(groups, narrow))
        self.mask_conv = nn.Conv2d(narrow, narrow, 1, bias=False)
        self.mask_embed = MLP((hidden, hidden, narrow))
        self.mask_bias = nn.Parameter(torch.zeros(1))
        self._initialise()

    def _initialise(self) -> None:
        """Let regions and prompts speak to each other from the first step on."""
        for align in self.class_embed[:-1]:
            nn.init.orthogonal_(align.dot_product_projection_text.weight)  # type: ignore[union-attr, arg-type]
            nn.init.constant_(align.log_scale, -0.5)  # type: ignore[arg-type]

    def encode_image(
        self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None
    ) -> ImageFeatures:
        """Run the backbone.

        Args:
            images: (B, 3, H, W) normalised RGB, H and W multiples of 32.
            sizes: height and width in pixels of each picture inside the canvas; None: all of it.
        """
        canvas = (images.shape[2], images.shape[3])
        sizes = (canvas,) * len(images) if sizes is None else tuple(sizes)
        levels, lateral = self.backbone(images.contiguous(memory_format=torch.channels_last))
        place = _geometry(self.nano, canvas, sizes, images.device)
        return ImageFeatures(tuple(levels), lateral, place, sizes, canvas)

    def to_units(
        self, boxes: Tensor, sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]
    ) -> Tensor:
        """(B, Q, 4) boxes in shares of images of `sizes` (rows, columns) to coordinate units."""
        sides = torch.tensor([(w, h, w, h) for h, w in sizes], device=boxes.device)
        return boxes * (sides[:, None] / self.nano.unit_on(canvas))

    def head(
        self, features: ImageFeatures, prompts: PromptFeatures, region: Tensor | None = None
    ) -> RawOutputs:
        """Find what the prompts name, as `Ape.head`; boxes are shares of each picture's size."""
        outputs = super().head(features, prompts, region)
        unit = self.nano.unit_on(features.canvas)
        boxes = outputs.decoded.boxes
        # Filled where the boxes are: a copy from the host would wait, and break a CUDA graph.
        shares = [boxes.new_full((), unit / side) for h, w in features.sizes for side in (w, h)]
        boxes = boxes * torch.stack(shares).view(-1, 1, 2).repeat(1, 1, 2)
        return replace(outputs, decoded=Decoded(outputs.decoded.hidden, boxes))

    def mask_feature(self, lateral: Tensor, memory_map: Tensor) -> Tensor:
        """(B, 48, H/4, W/4) stem map and (B, C, H/8, W/8) memory to (B, M, H/4, W/4)."""
        fine = self.lateral_conv(lateral)
        coarse = F.interpolate(
            self.coarse_conv(memory_map), size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        feature: Tensor = self.mask_conv(F.relu(self.output_conv(fine + coarse)))
        return feature

    def mask_logits(self, hidden: Tensor, feature: Tensor) -> Tensor:
        """(..., K, C) states on (..., M, H, W) features to (..., K, H, W) logits."""
        logits: Tensor = self.mask_embed(hidden) @ feature.flatten(-2) + self.mask_bias
        return logits.unflatten(-1, feature.shape[-2:])


@lru_cache(maxsize=8)
def _geometry(
    config: NanoConfig,
    canvas: tuple[int, int],
    sizes: tuple[tuple[int, int], ...],
    device: torch.device,
) -> Geometry:
    """Geometry of a batch, kept: a stream's frames are all alike."""
    levels = Levels(tuple((canvas[0] // stride, canvas[1] // stride) for stride in STRIDES))
    ape = config.ape
    plain = geometry(levels, sizes, canvas, ape.hidden, ape.anchor_size, device)
    return pixel_geometry(plain, config, canvas)
