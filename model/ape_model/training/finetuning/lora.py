"""Low-rank changes of matrices, which vanish into them at the end (Hu et al. 2022, LoRA)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ape_model.network.layers import SelfAttention

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LowRank", "add_low_rank", "merge_low_rank"]

ALPHA = 2.0
"""Scale of a change; the same for every rank, so that the learning rate fits them all."""


class LowRank(nn.Module):
    """W + ALPHA * B A: a matrix of (rows, columns) and a change of `rank`, zero at first."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        rank = min(rank, rows, columns)
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """(rows, columns) of the matrix to that of the changed one."""
        return weight + ALPHA * (self.up @ self.down)


def _matrices(part: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Every matrix of a part with the module that holds it, in a fixed order."""
    for module in part.modules():
        if isinstance(module, SelfAttention):
            yield module, "in_proj_weight"
        elif isinstance(module, nn.Linear):
            yield module, "weight"


def add_low_rank(part: nn.Module, rank: int, seed: int) -> None:
    """Put a change on every linear layer of a part; it computes the same until they learn.

    Args:
        part: Of the network.
        rank: Of the changes.
        seed: Of their first values.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module, name in list(_matrices(part)):
            # Every use of the weight sees the changed one, also where layers share a product.
            parametrize.register_parametrization(module, name, LowRank(getattr(module, name), rank))


def merge_low_rank(part: nn.Module) -> list[nn.Parameter]:
    """Put the changes into the matrices: names and shapes are again those of before.

    Returns:
        The matrices.
    """
    found = []
    for module, name in list(_matrices(part)):
        parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        found.append(getattr(module, name))
    return found
