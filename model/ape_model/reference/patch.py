"""Run a model in its reference form, as papers and official code write it: the baseline.

    with reference_mode(model):
        outputs = model(images, prompts)

Every exact rewrite is undone at once: fusion by full projections of all image tokens, attention by
an explicit score matrix, sampling by `grid_sample`, one value projection per decoder layer, all
tokens at once, boxes of all of them, proposals chosen among as many as survive, masks of all
queries after all decoder layers.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

from ape_model.network.ape import Ape
from ape_model.network.decoder import Decoder
from ape_model.network.deformable_attention import DeformableAttention
from ape_model.network.encoder import EncoderLayer
from ape_model.network.fusion import BiAttention
from ape_model.network.layers import FeedForward, SelfAttention
from ape_model.network.transformer import Transformer
from ape_model.network.vit import Attention
from ape_model.reference import modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from ape_model.network.geometry import Geometry, Levels

__all__ = ["reference_mode"]


def _deformable(
    self: DeformableAttention, query: Tensor, reference: Tensor, value: Tensor, levels: Levels
) -> Tensor:
    grid = (self.heads, self.n_levels, self.points)
    sampled = modules.deformable_sample(
        value.unflatten(-1, (self.heads, -1)),
        reference,
        self.sampling_offsets(query).unflatten(-1, (*grid, 2)),
        self.attention_weights(query).unflatten(-1, grid),
        levels.shapes,
    )
    return self.output_proj(sampled)


def _values(self: Decoder, memory: Tensor, geometry: Geometry, queries: int) -> tuple[Tensor, ...]:  # noqa: ARG001
    # One projection of the whole memory for every layer, as in the official code.
    return tuple(
        geometry.zero_padding(layer.cross.project_value(memory))  # type: ignore[operator, union-attr]
        for layer in self.layers
    )


@contextmanager
def reference_mode(model: nn.Module) -> Iterator[None]:
    """Inside the block, `model` computes in its reference form; not safe for several threads."""
    references: dict[type[nn.Module], tuple[str, Callable[..., Any]]] = {
        DeformableAttention: ("forward", _deformable),
        BiAttention: ("forward", modules.bi_attention),
        SelfAttention: ("forward", modules.self_attention),
        Attention: ("forward", modules.rope_attention),
        EncoderLayer: ("forward", modules.encoder_layer),
        FeedForward: ("forward", modules.feed_forward),
        Decoder: ("values", _values),
        Transformer: ("select_queries", modules.select_queries),
        Ape: ("region_masks", modules.region_masks),
    }
    # Set on each object, not on its class: other models and threads keep the fast form.
    changed = []
    for module in model.modules():
        for kind, (name, reference) in references.items():
            if isinstance(module, kind):
                setattr(module, name, MethodType(reference, module))
                changed.append((module, name))
    try:
        yield
    finally:
        for module, name in changed:
            delattr(module, name)  # the method of the class is visible again
