"""The decoder: queries attend to each other and to the memory; boxes are refined by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ape_model.network.align import Align
from ape_model.network.boxes import inverse_sigmoid
from ape_model.network.deformable_attention import DeformableAttention, Unprojected
from ape_model.network.layers import MLP, FeedForward, SelfAttention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.config import ApeConfig
    from ape_model.network.geometry import Geometry, Levels

__all__ = ["Decoded", "Decoder", "DecoderLayer"]

PRIOR_BIAS = -4.595  # logit of 0.01: an untrained token is hardly an object


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What every decoder layer computes of the queries."""

    hidden: Tensor
    """(layers, B, Q, C) states."""
    boxes: Tensor
    """(layers, B, Q, 4) cx, cy, w, h in 0..1 after each layer's refinement."""


class _NamedAttention(nn.Module):
    """Self attention under its official name `attn`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)

    def forward(self, query_key: Tensor, value: Tensor) -> Tensor:
        return self.attn(query_key, value)


class DecoderLayer(nn.Module):
    """Self attention, deformable cross attention, feed-forward net, post-norm."""

    def __init__(self, config: ApeConfig) -> None:
        super().__init__()
        cross = DeformableAttention(
            config.hidden, heads=config.heads, levels=config.levels, points=config.points
        )
        self.attentions = nn.ModuleList([_NamedAttention(config.hidden, config.heads), cross])
        self.ffns = nn.ModuleList([FeedForward(config.hidden, config.ffn)])
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden) for _ in range(3))

    @property
    def cross(self) -> DeformableAttention:
        """The attention to the memory."""
        return cast("DeformableAttention", self.attentions[1])

    def forward(
        self,
        query: Tensor,
        position: Tensor,
        reference: Tensor,
        value: Tensor | Unprojected,
        levels: Levels,
    ) -> Tensor:
        """(B, Q, C) -> (B, Q, C), `reference` (B, Q, L, 4), `value` of the memory."""
        # Positions enter queries and keys, never values: content is what flows on.
        query = self.norms[0](query + self.attentions[0](query + position, query))
        seen = self.cross(query + position, reference, value, levels)
        query = self.norms[1](query + seen)
        return self.norms[2](self.ffns[0](query))


class Decoder(nn.Module):
    """All layers with their box and class heads, and the two-stage heads after them."""

    def __init__(self, config: ApeConfig) -> None:
        super().__init__()
        width, count = config.hidden, config.decoder_layers
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(count))
        # One more of each than layers: the last pair scores tokens, before any decoder.
        self.bbox_embed = nn.ModuleList(_box_head(width) for _ in range(count + 1))
        aligns = [Align(width, config.text_width) for _ in range(count)]
        self.class_embed = nn.ModuleList([*aligns, _objectness_head(width)])
        if config.ambiguous_heads:
            extra = range(config.ambiguous_heads)
            self.bbox_embed_ambiguous = nn.ModuleList(_box_head(width) for _ in extra)
            self.class_embed_ambiguous = nn.ModuleList(_objectness_head(width) for _ in extra)
        self.ambiguous = bool(config.ambiguous_heads)

    @property
    def aligns(self) -> list[Align]:
        """The alignment of every layer."""
        return [head for head in self.class_embed if isinstance(head, Align)]

    def token_objectness(self, tokens: Tensor) -> Tensor:
        """(..., C) tokens to the (..., K) logits of the K two-stage heads."""
        heads = [self.class_embed[-1]]
        if self.ambiguous:
            heads += self.class_embed_ambiguous
        return torch.cat([head(tokens) for head in heads], dim=-1)

    def token_box_deltas(self, tokens: Tensor) -> Tensor:
        """(..., C) tokens to (..., K, 4) box logits of these heads, to add to the anchors'."""
        heads = [self.bbox_embed[-1]]
        if self.ambiguous:
            heads += self.bbox_embed_ambiguous
        return torch.stack([head(tokens) for head in heads], dim=-2)

    def project_values(self, memory: Tensor, geometry: Geometry) -> tuple[Tensor, ...]:
        """One projection of the (B, N, C) memory to the (B, N, C) values of every layer."""
        layers: list[Any] = list(self.layers)
        # All layers read the same memory: one product reads it once, not once per layer.
        heads: list[nn.Linear] = [layer.cross.value_proj for layer in layers]
        weight = torch.cat([head.weight for head in heads])  # (layers * C, C)
        bias = torch.cat([head.bias for head in heads])
        values = geometry.zero_padding(F.linear(memory, weight, bias))
        return values.chunk(len(heads), dim=-1)

    def values(
        self, memory: Tensor, geometry: Geometry, queries: int
    ) -> Sequence[Tensor | Unprojected]:
        """What the layers sample: on a CPU, where it is less work, the memory itself."""
        first = cast("DecoderLayer", self.layers[0])
        on_cpu = memory.device.type == "cpu"
        if not (on_cpu and first.cross.prefers_late_projection(queries, memory.shape[1])):
            return self.project_values(memory, geometry)
        inside = (~geometry.padded).to(memory.dtype)
        return [Unprojected(geometry.zero_padding(memory), inside)] * len(self.layers)

    def forward(
        self, query: Tensor, position: Tensor, boxes: Tensor, memory: Tensor, geometry: Geometry
    ) -> Decoded:
        """Refine queries.

        Args:
            query: (B, Q, C) content.
            position: (B, Q, C), the same for all layers.
            boxes: (B, Q, 4) cx, cy, w, h in 0..1 of the proposals.
            memory: (B, N, C).
            geometry: Of the batch.
        """
        # Boxes are shares of the image; a level is the image and its padding.
        ratios = geometry.valid_ratios.repeat(1, 1, 2)[:, None]  # (B, 1, L, 4)
        values = self.values(memory, geometry, query.shape[1])
        hidden, refined = [], []
        # Not strict: the last box head is for tokens, see `__init__`.
        for layer, head, value in zip(self.layers, self.bbox_embed, values, strict=False):
            # Detached: each layer learns its own step (Deformable DETR, iterative refinement).
            reference = boxes.detach()[:, :, None] * ratios  # (B, Q, L, 4)
            query = layer(query, position, reference, value, geometry.levels)
            boxes = (head(query) + inverse_sigmoid(boxes.detach())).sigmoid()
            hidden.append(query)
            refined.append(boxes)
        return Decoded(torch.stack(hidden), torch.stack(refined))


def _box_head(width: int) -> MLP:
    # Zeros: an untrained head leaves every box where its anchor is.
    head = MLP((width, width, width, 4))
    last = head.layers[-1]
    nn.init.zeros_(last.weight)  # type: ignore[arg-type]
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return head


def _objectness_head(width: int) -> nn.Linear:
    head = nn.Linear(width, 1)
    nn.init.constant_(head.bias, PRIOR_BIAS)
    return head
