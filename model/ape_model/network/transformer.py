"""The transformer: encoder, two-stage proposals, decoder (DETA on Deformable DETR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ape_model.network.decoder import Decoded, Decoder
from ape_model.network.encoder import Encoder
from ape_model.network.geometry import box_position
from ape_model.network.layers import map_chunks
from ape_model.network.proposals import select_queries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ape_model.config import ApeConfig
    from ape_model.network.geometry import Geometry, Levels

__all__ = ["Proposals", "TokenScores", "Transformer"]


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """Outputs of the two-stage heads for every token."""

    states: Tensor
    """(B, N, C) tokens after the output projection; all invalid tokens share one state."""
    objectness: Tensor
    """(B, N) logits of each token's strongest two-stage head."""
    head: Tensor
    """(B, N) int64 index of that head."""
    anchors: Tensor
    """(B, N, 4) logits of cx, cy, w, h; +inf for invalid tokens."""
    box_deltas: Callable[[Tensor], Tensor]
    """(..., C) states to the (..., K, 4) box logits, on top of the anchors', of the K heads."""

    def boxes(self, image: int, tokens: Tensor) -> Tensor:
        """(T, 4) box logits of (T,) int64 tokens of one image: cheap for few of them."""
        deltas = self.box_deltas(self.states[image, tokens])
        return self._strongest(deltas, self.head[image, tokens], self.anchors[image, tokens])

    def all_boxes(self) -> Tensor:
        """(B, N, 4) box logits of all tokens."""
        return self._strongest(self.box_deltas(self.states), self.head, self.anchors)

    @staticmethod
    def _strongest(deltas: Tensor, head: Tensor, anchors: Tensor) -> Tensor:
        index = head[..., None, None].expand(*head.shape, 1, 4)  # all 4 numbers of one head
        exact = torch.promote_types(deltas.dtype, torch.float32)
        # An invalid token stays at +inf, which is exactly 1 after the sigmoid.
        return deltas.gather(-2, index).squeeze(-2) + anchors.to(exact)  # (..., 4)


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """The tokens that become queries, best first."""

    tokens: Tensor
    """(B, Q) int64 token indices."""
    boxes: Tensor
    """(B, Q, 4) cx, cy, w, h in 0..1; exactly 1 where the token was invalid."""
    query: Tensor
    """(B, Q, C) first content of the queries."""
    position: Tensor
    """(B, Q, C) position of the queries."""


class Transformer(nn.Module):
    """Everything between the pyramid and the heads."""

    def __init__(self, config: ApeConfig) -> None:
        super().__init__()
        width = config.hidden
        self.config = config
        self.level_embeds = nn.Parameter(torch.empty(config.levels, width))
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.enc_output = nn.Linear(width, width)
        self.enc_output_norm = nn.LayerNorm(width)
        self.pos_trans = nn.Linear(2 * width, 2 * width)
        self.pos_trans_norm = nn.LayerNorm(2 * width)
        self.pix_trans = nn.Linear(width, width)
        self.pix_trans_norm = nn.LayerNorm(width)
        nn.init.normal_(self.level_embeds)

    def encode(
        self,
        maps: Sequence[Tensor],
        geometry: Geometry,
        text: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Maps of (B, C, H_l, W_l) to (B, N, C) memory, and the fused (B, T, Dl) text."""
        tokens = torch.cat([level.flatten(2).mT for level in maps], dim=1)  # (B, N, C)
        counted = zip(self.level_embeds, geometry.levels.counts, strict=True)
        # The sine position is the same on every level; this vector says which level it is.
        level_of = torch.cat([embed.expand(count, -1) for embed, count in counted])  # (N, C)
        position = geometry.position.to(tokens.dtype) + level_of
        return self.encoder(tokens, position, geometry, text)

    def score(self, memory: Tensor, geometry: Geometry) -> TokenScores:
        """Objectness of all (B, N, C) tokens; their boxes are computed on demand."""

        def states_of(part: slice) -> Tensor:
            # As in the official code, zeroed before the projection: invalid tokens tie exactly.
            usable = memory[:, part].masked_fill(geometry.invalid[:, part, None], 0.0)
            return self.enc_output_norm(self.enc_output(usable))

        states = map_chunks(states_of, memory)
        objectness, head = self.decoder.token_objectness(states).max(dim=-1)
        if not self.config.padding_proposes:
            objectness = objectness.masked_fill(geometry.padded, -torch.inf)
        return TokenScores(
            states, objectness, head, geometry.anchors, self.decoder.token_box_deltas
        )

    def propose(self, scores: TokenScores, geometry: Geometry) -> Proposals:
        """Choose the queries of every image and give them their first states."""
        # The choice has no gradient: the two-stage heads learn from losses on all tokens.
        with torch.no_grad():
            selected = [
                self._queries_of(scores, image, geometry.levels)
                for image in range(len(scores.states))
            ]
        tokens, chosen = (torch.stack(parts) for parts in zip(*selected, strict=True))
        image = torch.arange(len(tokens), device=tokens.device)[:, None]  # (B, 1)
        embedded = box_position(chosen, 2 * self.config.hidden).to(scores.states.dtype)
        # Half of the embedded box is the position of a query, half its content ...
        position, query = self.pos_trans_norm(self.pos_trans(embedded)).chunk(2, dim=-1)
        # ... to which DETA adds the state of its token.
        content = self.pix_trans(scores.states.detach()[image, tokens])  # (B, Q, C)
        return Proposals(
            tokens=tokens,
            boxes=chosen,
            query=query + self.pix_trans_norm(content),
            position=position,
        )

    def _queries_of(self, scores: TokenScores, image: int, levels: Levels) -> tuple[Tensor, Tensor]:
        """(Q,) int64 tokens of one image that become queries, and their (Q, 4) boxes."""

        def boxes(tokens: Tensor) -> Tensor:
            return scores.boxes(image, tokens).sigmoid()

        tokens = self.select_queries(scores.objectness[image], boxes, levels)
        return tokens, boxes(tokens)

    def select_queries(
        self, objectness: Tensor, boxes: Callable[[Tensor], Tensor], levels: Levels
    ) -> Tensor:
        """(Q,) int64 tokens that become queries of one image; see `select_queries`."""
        return select_queries(objectness, boxes, levels, self.config)

    def decode(self, proposals: Proposals, memory: Tensor, geometry: Geometry) -> Decoded:
        """Run the decoder on the proposals."""
        return self.decoder(proposals.query, proposals.position, proposals.boxes, memory, geometry)
