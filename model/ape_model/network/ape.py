"""The whole of APE (Shen et al. 2024, figure 2): one image, many prompts, regions and their masks.

    features = model.encode_image(images, sizes)          # once per frame
    outputs = model.head(features, model.vocabulary(words))   # once per kind of prompt
    masks = model.region_masks(outputs, image, queries)   # for what was kept

Module names are those of the official checkpoints without their common prefix `model_vision.`;
heads that appear there twice are one module here, too, registered under both names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ape_model.network.decoder import Decoded
from ape_model.network.geometry import Geometry, ImageCoordinates, Levels
from ape_model.network.mask_head import MaskHead
from ape_model.network.pyramid import ChannelMapper, SimpleFeaturePyramid
from ape_model.network.transformer import Proposals, TokenScores, Transformer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.config import ApeConfig
    from ape_model.network.align import Align, ExactAlignment
    from ape_model.network.geometry import Coordinates

__all__ = ["FEW_QUERIES", "OFFICIAL_PREFIX", "Ape", "ImageFeatures", "PromptFeatures", "RawOutputs"]

OFFICIAL_PREFIX = "model_vision."
"""What official checkpoints put before every key of this module."""

MASK_BLOCK = 8
"""Queries whose masks are made in one product, of many."""
FEW_QUERIES = 96
"""So many or fewer take one product, a fraction of a millisecond: an index needs all of them."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """Features of a batch of images, which no prompt changes."""

    maps: tuple[Tensor, ...]
    """Per level (B, C, H_l, W_l), finest first, after the neck."""
    lateral: Tensor
    """(B, C, H, W), where the mask head starts: the backbone's finest map, before the neck."""
    geometry: Geometry
    """Grids, padding, positions, anchors."""
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
    vectors: Tensor | None = None
    """(1, L, C) float32, the classes projected by the alignment; None: the head projects them."""
    biases: Tensor | None = None
    """(1, L) float32, bias of each class, together with the vectors."""


@dataclass(frozen=True, slots=True, eq=False)
class RawOutputs:
    """Output of the head for a batch; masks are made later, for the regions that are kept."""

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


class Ape(nn.Module):
    """Backbone, neck, transformer and heads.

    Args:
        config: Every size.
        backbone: Images to `BackboneMaps`; None for the one that `config.backbone` describes.
        mask_head: Region states to masks; None for the one of the released models.
        coordinates: The unit of boxes inside the network; None for shares of the image.
    """

    def __init__(
        self,
        config: ApeConfig,
        *,
        backbone: nn.Module | None = None,
        mask_head: MaskHead | None = None,
        coordinates: Coordinates | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.coordinates = coordinates or ImageCoordinates(config.hidden, config.anchor_size)
        self.mask_head = mask_head or _mask_head(config)
        self.backbone = backbone or SimpleFeaturePyramid(
            config.backbone, canvas=config.canvas, channels=config.hidden
        )
        if config.neck:
            self.neck = ChannelMapper(
                levels=config.levels, channels=config.hidden, groups=config.norm_groups
            )
        self.transformer = Transformer(config)
        # The same modules again: official checkpoints hold these keys at both places.
        self.bbox_embed = self.transformer.decoder.bbox_embed
        self.class_embed = self.transformer.decoder.class_embed
        if config.fusion:
            self.name_prompt_fusion_feature = nn.Parameter(torch.zeros(1, 1, config.text_width))
        self.register_state_dict_post_hook(_to_official_keys)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_from_official_keys)  # type: ignore[no-untyped-call]

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
        """Project the classes once for all images: of 10,000 names it is most of the cost."""
        if self.training:  # every step changes the projection
            return prompts
        vectors, biases = self.alignment.project_exactly(_class_text(prompts, None))
        return replace(prompts, vectors=vectors, biases=biases)

    @property
    def alignment(self) -> Align:
        """The alignment of the last decoder layer."""
        return self.transformer.decoder.aligns[-1]

    def encode_image(
        self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None
    ) -> ImageFeatures:
        """Run backbone, pyramid and neck: the part that no prompt changes.

        Args:
            images: (B, 3, H, W) normalised RGB, zero-padded right and bottom.
            sizes: Height and width in pixels of each image; None for unpadded images.
        """
        canvas = (images.shape[2], images.shape[3])
        sizes = (canvas,) * len(images) if sizes is None else tuple(sizes)
        levels, lateral = self.backbone(images)
        maps = tuple(self.neck(levels) if self.config.neck else levels)
        grids = Levels(tuple((level.shape[2], level.shape[3]) for level in maps))
        geometry = self.coordinates.geometry(grids, sizes, canvas, images.device)
        return ImageFeatures(maps, lateral, geometry, sizes, canvas)

    def head(self, features: ImageFeatures, prompts: PromptFeatures) -> RawOutputs:
        """Find what the prompts name: the part that is run once per kind of prompt.

        Args:
            features: Of `encode_image`.
            prompts: Of `vocabulary` or `sentences`.
        """
        memory, fused = self.encode(features, prompts)
        return self.decode(features, prompts, memory, fused)

    def encode(
        self, features: ImageFeatures, prompts: PromptFeatures
    ) -> tuple[Tensor, Tensor | None]:
        """First half of `head`: (B, N, C) memory and the (B, T, Dl) fused text, None without it.

        With names as prompts it is the same for all names, because the image sees only the zero
        token.
        """
        fusion = prompts.fusion
        if fusion is not None:
            fusion = fusion.expand(features.lateral.shape[0], -1, -1)
        return self.transformer.encode(features.maps, features.geometry, fusion)

    def decode(
        self,
        features: ImageFeatures,
        prompts: PromptFeatures,
        memory: Tensor,
        fused: Tensor | None,
    ) -> RawOutputs:
        """Second half of `head`, on what `encode` returned; it reads no maps of the features."""
        geometry, transformer = features.geometry, self.transformer
        text = _class_text(prompts, fused)
        tokens = transformer.score(memory, geometry)
        proposals = transformer.propose(tokens, geometry)
        decoded = transformer.decode(proposals, memory, geometry)
        boxes = self.coordinates.to_shares(decoded.boxes, features.sizes, features.canvas)
        # The mask head takes the finest level of the memory, as a map again.
        finest, grid = memory[:, : geometry.levels.counts[0]], geometry.levels.shapes[0]
        return RawOutputs(
            memory=memory,
            text=text,
            tokens=tokens,
            proposals=proposals,
            decoded=Decoded(decoded.hidden, boxes),
            logits=self._score(decoded.hidden[-1], prompts, text),
            mask_feature=self.mask_head.feature(features.lateral, finest.mT.unflatten(-1, grid)),
        )

    def _score(self, hidden: Tensor, prompts: PromptFeatures, text: Tensor) -> Tensor:
        if prompts.vectors is None or prompts.biases is None:
            return self.alignment(hidden, text)
        return self.alignment.score(hidden, prompts.vectors, prompts.biases)

    def exact_alignment(
        self, outputs: RawOutputs, prompts: PromptFeatures
    ) -> ExactAlignment | None:
        """Exact scores of the pairs of `outputs.logits`; None where prompts are fused first."""
        if prompts.vectors is None or prompts.biases is None:
            return None
        return self.alignment.exactly(outputs.hidden, prompts.vectors, prompts.biases)

    def region_masks(
        self, outputs: RawOutputs, image: int, queries: Tensor | None = None
    ) -> Tensor:
        """Mask logits (K, H, W) of some queries of one image, over the whole canvas.

        The mask of a query is the same to the bit whichever others are asked for with it.

        Args:
            outputs: Of `head`.
            image: Which one of the batch.
            queries: (K,) int64 on the host; None for all, in one product, whose last bits differ.
        """
        hidden, feature = outputs.hidden[image], outputs.mask_feature[image]
        if queries is None:
            return self.mask_head.logits(hidden, feature)
        return self.masks_of(hidden, feature, queries)

    def masks_of(self, hidden: Tensor, feature: Tensor, queries: Tensor) -> Tensor:
        """As `region_masks`, of (Q, C) states and a (C', H, W) feature."""
        if not len(queries):
            return feature.new_zeros(0, *feature.shape[-2:])
        # A product of another shape has other last bits: so always whole blocks of neighbours.
        if len(hidden) <= FEW_QUERIES:
            return self.mask_head.logits(hidden, feature).index_select(0, queries)
        asked = [divmod(query, MASK_BLOCK) for query in queries.tolist()]
        blocks = {
            block: self.mask_head.logits(
                hidden[block * MASK_BLOCK : (block + 1) * MASK_BLOCK], feature
            )
            for block in dict.fromkeys(block for block, _ in asked)
        }
        return torch.stack([blocks[block][row] for block, row in asked])

    def forward(
        self,
        images: Tensor,
        prompts: PromptFeatures,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> RawOutputs:
        """Image and head for one kind of prompt; arguments as in `encode_image` and `head`."""
        return self.head(self.encode_image(images, sizes), prompts)


def _mask_head(config: ApeConfig) -> MaskHead:
    width = config.hidden
    return MaskHead(
        lateral=width, channels=width, groups=config.norm_groups, embed_widths=(width,) * 4
    )


def _class_text(prompts: PromptFeatures, fused: Tensor | None) -> Tensor:
    text = fused if prompts.classes is None else prompts.classes
    if text is None:
        raise ValueError("a model without fusion needs class prompts, got none")
    return text


# Official checkpoints, and so all files of weights, hold the modules of the mask head at top level.
def _to_official_keys(_model: nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
    own = f"{prefix}mask_head."
    for key in [key for key in state if key.startswith(own)]:
        state[prefix + key.removeprefix(own)] = state.pop(key)


def _from_official_keys(model: Ape, state: dict[str, Any], prefix: str, *_: object) -> None:
    for key in model.mask_head.state_dict():
        if prefix + key in state:
            state[f"{prefix}mask_head.{key}"] = state.pop(prefix + key)
