"""The deformable encoder: image tokens attend to each other and, where fused, to the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from ape_model.network.deformable_attention import DeformableAttention
from ape_model.network.fusion import VisionLanguageFusion
from ape_model.network.layers import FeedForward, map_chunks

if TYPE_CHECKING:
    from ape_model.config import ApeConfig
    from ape_model.network.geometry import Geometry, Levels

__all__ = ["Encoder", "EncoderLayer"]


class EncoderLayer(nn.Module):
    """Deformable self attention and feed-forward net, post-norm."""

    def __init__(self, config: ApeConfig) -> None:
        super().__init__()
        attention = DeformableAttention(
            config.hidden, heads=config.heads, levels=config.levels, points=config.points
        )
        self.attentions = nn.ModuleList([attention])
        self.ffns = nn.ModuleList([FeedForward(config.hidden, config.ffn)])
        self.norms = nn.ModuleList(nn.LayerNorm(config.hidden) for _ in range(2))

    @property
    def attention(self) -> DeformableAttention:
        """The attention of all tokens to all tokens."""
        return cast("DeformableAttention", self.attentions[0])

    def forward(self, tokens: Tensor, position: Tensor, geometry: Geometry) -> Tensor:
        """(B, N, C) tokens and positions -> (B, N, C) tokens.

        A query reads values only, never other queries, so the tokens can attend chunk by chunk.
        """
        # Zeroed after the projection, or padding would contribute its bias.
        value = geometry.zero_padding(self.attention.project_value(tokens))  # (B, N, C)

        def attend(part: slice) -> Tensor:
            reference = geometry.reference[:, part]  # (B, n, L, 2)
            return self.attend(
                tokens[:, part], position[:, part], reference, value, geometry.levels
            )

        return map_chunks(attend, tokens)

    def attend(
        self, tokens: Tensor, position: Tensor, reference: Tensor, value: Tensor, levels: Levels
    ) -> Tensor:
        """Let (B, Q, C) of the tokens attend to the (B, N, C) values of all, then feed forward."""
        # Positions steer where a token samples; values and the residual have none.
        attended = self.attention(tokens + position, reference, value, levels)
        tokens = self.norms[0](tokens + attended)
        return self.norms[1](self.ffns[0](tokens))


class Encoder(nn.Module):
    """All encoder layers, each after its fusion block where the model has them."""

    def __init__(self, config: ApeConfig) -> None:
        super().__init__()
        count = config.encoder_layers
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(count))
        if config.fusion:
            self.vl_layers = nn.ModuleList(VisionLanguageFusion(config) for _ in range(count))
        self.fused = config.fusion

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        geometry: Geometry,
        text: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Encode image tokens and text together.

        Args:
            tokens: (B, N, C) flattened maps.
            position: (B, N, C) with the level embedding.
            geometry: Of the batch.
            text: (B, T, Dl) fusion text; None for a model without fusion.

        Returns:
            (B, N, C) memory and the (B, T, Dl) fused text, or None without fusion.
        """
        for index, layer in enumerate(self.layers):
            if self.fused:
                tokens, text = self.vl_layers[index](tokens, text)  # (B, N, C), (B, T, Dl)
            tokens = layer(tokens, position, geometry)
        return tokens, text if self.fused else None
