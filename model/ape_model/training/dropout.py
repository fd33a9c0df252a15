"""What is left out at random while a network trains.

Stochastic depth: in a step, some images skip some blocks (Huang et al. 2016; "drop path"). Dropout
of attention weights where image and text are fused (GLIP).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ape_model.network.fusion import BiAttention
from ape_model.network.vit import ViT

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["add_drop_path", "add_fusion_dropout"]


def add_fusion_dropout(network: nn.Module, rate: float) -> None:
    """Let attention weights between image and text be left out at random while a network trains.

    Args:
        network: Changed in place.
        rate: Part that is left out, 0..1 and below 1; the rest is scaled up.
    """
    for module in network.modules():
        if isinstance(module, BiAttention):
            module.dropout = rate


def add_drop_path(network: nn.Module, rate: float) -> None:
    """Let branches of vision transformers be left out at random while they train.

    Both branches of a block, attention and feed-forward net, are left out by themselves, and scaled
    up where they are kept. The rate rises linearly, from 0 in the first block.

    Args:
        network: Changed in place; the names of its weights stay.
        rate: Of the last block, 0..1 and below 1.
    """
    for vit in network.modules():
        if rate and isinstance(vit, ViT):
            batch = _BatchSize()
            vit.register_forward_pre_hook(batch)
            rates = torch.linspace(0, rate, len(vit.blocks)).tolist()
            for block, own in zip(vit.blocks, rates, strict=True):
                for branch in ("attn", "mlp"):
                    block.get_submodule(branch).register_forward_hook(_DropPath(batch, own))


class _BatchSize:
    """Number of images in the current pass: attention sees windows and not images."""

    images = 1

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.images = len(inputs[0])


class _DropPath:
    def __init__(self, batch: _BatchSize, rate: float) -> None:
        self.batch, self.rate = batch, rate

    def __call__(self, branch: nn.Module, _: Any, output: Tensor) -> Tensor:
        if not branch.training or not self.rate:
            return output
        keep = 1 - self.rate
        images = self.batch.images
        kept = (torch.rand(images, device=output.device) < keep).to(output) / keep  # (B,)
        # Windows of one image lie together: (B * n, ...).
        scale = kept.repeat_interleave(len(output) // images)
        return output * scale.view(-1, *[1] * (output.ndim - 1))
