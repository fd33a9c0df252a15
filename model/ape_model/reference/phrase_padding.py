"""The official demo pads sentences to a fixed count with zero vectors.

Zero vectors are not inert: after LayerNorm they are its bias, take part in fusion and are scored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["pad_zeros"]


def pad_zeros(embeddings: Tensor, total: int) -> Tensor:
    """(L, Dl) embeddings with zero rows up to `total`, if they are fewer."""
    missing = max(0, total - embeddings.shape[0])
    return torch.cat([embeddings, embeddings.new_zeros(missing, embeddings.shape[1])])
