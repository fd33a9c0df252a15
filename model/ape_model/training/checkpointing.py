"""Activation checkpointing: layers compute twice instead of keeping what is between (Chen 2016)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch.utils.checkpoint import checkpoint

from ape_model.network.encoder import EncoderLayer
from ape_model.network.fusion import VisionLanguageFusion
from ape_model.network.vit import Block

if TYPE_CHECKING:
    from torch import nn

__all__ = ["checkpoint_layers"]


def checkpoint_layers(
    network: nn.Module, *, backbone: bool = False, encoder: bool = False, fusion: bool = False
) -> None:
    """Let layers keep only their inputs for the backward pass; the gradients are the same.

    Args:
        network: Changed in place.
        backbone: Blocks of the vision transformer.
        encoder: Deformable layers of the encoder.
        fusion: Fusion of image and text.
    """
    kinds = {Block: backbone, EncoderLayer: encoder, VisionLanguageFusion: fusion}
    chosen = tuple(kind for kind, on in kinds.items() if on)
    for module in network.modules():
        if isinstance(module, chosen):
            # On the instance: the class, and the names of its weights, stay as they are.
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)
