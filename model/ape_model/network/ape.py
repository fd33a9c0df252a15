"""APE, whole: one image, many words, regions and their masks.

    features = model.encode_image(images, sizes)          # once per frame
    outputs = model.head(features, model.vocabulary(words))   # once per kind of prompt
    masks = model.region_masks(outputs, image, queries)   # for what was kept

Module names are those of the official checkpoints without their common prefix `model_vision.`;
heads that appear there twice are one module here, too, registered under both names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ape_model.network.backbone import build_backbone
from ape_model.network.geometry import Geometry, Levels, geometry
from ape_model.network.mask_head import MaskHead
from ape_model.network.pyramid import ChannelMapper
from ape_model.network.transformer import Proposals, TokenScores, Transformer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.config import ApeConfig
    from ape_model.network.align import Align
    from ape_model.network.decoder import Decoded

__all__ = ["OFFICIAL_PREFIX", "Ape", "ImageFeatures", "PromptFeatures", "RawOutputs"]

OFFICIAL_PREFIX = "model_vision."
"""What official checkpoints put before every key of this module."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """What is known of a batch of images before any prompt."""

    maps: tuple[Tensor, ...]
    """Per level (B, C, H_l, W_l), finest first, after the neck."""
    lateral: Tensor
    """(B, C, H, W), where the mask head starts: the backbone's finest map, before the neck."""
    geometry: Geometry
    """Grids, padding, places, anchors."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width in pixels of each image inside the canvas."""
    canvas: tuple[int, int]
    """Height and width in pixels of the padded images."""


@dataclass(frozen=True, slots=True, eq=False)
class PromptFeatures:
    """The embedded prompts of one pass through the head."""

    fusion: Tensor | None
    """(1 | B, T, Dl) what is fused with the image; None for a model without fusion."""
    classes: Tensor | None
    """(1 | B, L, Dl) what regions are aligned with; None for the fused text itself."""
    counts: Tensor | None = None
    """(T,) how many equal fusion tokens each stands for, 0 to ignore it; None for one each."""
    vectors: Tensor | None = None
    """(1, L, C) the classes as the alignment projects them; None: to be projected in the head."""
    biases: Tensor | None = None
    """(1, L) what goes with the vectors."""


@dataclass(frozen=True, slots=True, eq=False)
class RawOutputs:
    """What the head says of a batch; masks are made later, for the regions that are kept."""

    memory: Tensor
    """(B, N, C) encoded image tokens."""
    text: Tensor
    """(1 | B, L, Dl) prompts that regions were aligned with; fused, where they were fused."""
    tokens: TokenScores
    """Objectness and boxes of all tokens."""
    proposals: Proposals
    """The tokens that became queries."""
    decoded: Decoded
    """States and boxes of the queries after every decoder layer."""
    logits: Tensor
    """(B, Q, L) alignment of queries and prompts after the last layer."""
    mask_feature: Tensor
    """(B, C, H, W) what mask vectors are multiplied with."""

    @property
    def boxes(self) -> Tensor:
        """(B, Q, 4) final boxes as cx, cy, w, h in 0..1 of the unpadded image."""
        return self.decoded.boxes[-1]

    @property
    def hidden(self) -> Tensor:
        """(B, Q, C) final states of the queries."""
        return self.decoded.hidden[-1]


class Ape(MaskHead):
    """Backbone, neck, transformer and heads.

    Args:
        config: every size.
        backbone: makes the maps; None for the one that `config.backbone` describes.
    """

    def __init__(self, config: ApeConfig, backbone: nn.Module | None = None) -> None:
        super().__init__(config)
        self.config = config
        self.backbone = build_backbone(config) if backbone is None else backbone
        if config.neck:
            self.neck = ChannelMapper(
                levels=config.levels, channels=config.hidden, groups=config.norm_groups
            )
        self.transformer = Transformer(config)
        self.bbox_embed = self.transformer.decoder.bbox_embed
        self.class_embed = self.transformer.decoder.class_embed
        if config.fusion:
            self.name_prompt_fusion_feature = nn.Parameter(torch.zeros(1, 1, config.text_width))

    def vocabulary(self, embeddings: Tensor) -> PromptFeatures:
        """(L, Dl) names: regions are aligned with them, the image sees only the zero token."""
        fusion = self.name_prompt_fusion_feature if self.config.fusion else None
        return self._projected(PromptFeatures(fusion=fusion, classes=embeddings[None]))

    def sentences(self, embeddings: Tensor) -> PromptFeatures:
        """(L, Dl) descriptions: fused with the image, then aligned in their fused form."""
        if not self.config.fusion:
            return self._projected(PromptFeatures(fusion=None, classes=embeddings[None]))
        return PromptFeatures(fusion=embeddings[None], classes=None)

    def _projected(self, prompts: PromptFeatures) -> PromptFeatures:
        """Of 10,000 names the projection is most of their cost, and no image changes it."""
        if self.training:  # but every step does
            return prompts
        vectors, biases = self._align.project(_class_text(prompts, None))
        return replace(prompts, vectors=vectors, biases=biases)

    @property
    def _align(self) -> Align:
        """The alignment of the last decoder layer."""
        align: Align = self.class_embed[self.config.decoder_layers - 1]  # type: ignore[assignment]
        return align

    def encode_image(
        self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None
    ) -> ImageFeatures:
        """Run backbone, pyramid and neck: the part that no prompt changes.

        Args:
            images: (B, 3, H, W) normalised RGB, zero-padded right and bottom.
            sizes: height and width in pixels of each image; None for unpadded images.
        """
        canvas = (images.shape[2], images.shape[3])
        sizes = (canvas,) * len(images) if sizes is None else tuple(sizes)
        levels, lateral = self.backbone(images)
        maps = self.neck(levels) if self.config.neck else levels
        place = geometry(
            Levels(tuple((level.shape[2], level.shape[3]) for level in maps)),
            sizes,
            canvas,
            self.config.hidden,
            self.config.anchor_size,
            images.device,
        )
        return ImageFeatures(tuple(maps), lateral, place, sizes, canvas)

    def head(
        self, features: ImageFeatures, prompts: PromptFeatures, region: Tensor | None = None
    ) -> RawOutputs:
        """Find what the prompts name: the part that is run once per kind of prompt.

        Args:
            features: of `encode_image`.
            prompts: of `vocabulary` or `sentences`.
            region: (B, H, W) bool over the canvas: propose only where it is True; all False
                means everywhere.
        """
        place, transformer = features.geometry, self.transformer
        fusion = prompts.fusion
        if fusion is not None:
            fusion = fusion.expand(features.lateral.shape[0], -1, -1)
        memory, fused = transformer.encode(features.maps, place, fusion, prompts.counts)
        text = _class_text(prompts, fused)
        outside = None if region is None else _outside(region, place.levels)
        tokens = transformer.score(memory, place, outside)
        proposals = transformer.propose(tokens, place)
        decoded = transformer.decode(proposals, memory, place)
        finest = memory[:, : place.levels.counts[0]].mT.unflatten(-1, place.levels.shapes[0])
        return RawOutputs(
            memory=memory,
            text=text,
            tokens=tokens,
            proposals=proposals,
            decoded=decoded,
            logits=self._score(decoded.hidden[-1], prompts, text),
            mask_feature=self.mask_feature(features.lateral, finest),
        )

    def _score(self, hidden: Tensor, prompts: PromptFeatures, text: Tensor) -> Tensor:
        if prompts.vectors is None or prompts.biases is None:
            return self._align(hidden, text)
        return self._align.score(hidden, prompts.vectors, prompts.biases)

    def region_masks(self, outputs: RawOutputs, image: int, queries: Tensor) -> Tensor:
        """Mask logits (K, H, W) of (K,) int64 queries of one image, over the whole canvas."""
        return self.mask_logits(outputs.hidden[image, queries], outputs.mask_feature[image])

    def forward(
        self,
        images: Tensor,
        prompts: PromptFeatures,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> RawOutputs:
        """The whole figure for one kind of prompt; arguments as in `encode_image` and `head`."""
        return self.head(self.encode_image(images, sizes), prompts)


def _class_text(prompts: PromptFeatures, fused: Tensor | None) -> Tensor:
    text = fused if prompts.classes is None else prompts.classes
    if text is None:
        raise ValueError("a model without fusion needs class prompts, got none")
    return text


def _outside(region: Tensor, levels: Levels) -> Tensor | None:
    """(B, H, W) bool over the canvas to (B, N) bool, True for tokens outside the region."""
    if not bool(region.any()):
        return None
    # A cell is inside where bilinear resize leaves anything of the region.
    inside = [
        F.interpolate(region[None].float(), size=shape, mode="bilinear")[0].flatten(1) > 0
        for shape in levels.shapes
    ]
    return ~torch.cat(inside, dim=1)
