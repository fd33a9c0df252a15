"""Zero phrases as the official demo pads sentences with, and one of them in place of many.

Zero vectors are not inert: after LayerNorm they are its bias, take part in fusion and are scored.
All are equal, though, so that one of them with its count gives the same result as all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["collapse_zeros", "pad_zeros"]


def pad_zeros(embeddings: Tensor, total: int) -> Tensor:
    """(L, D) embeddings with zero rows up to `total`, if they are fewer."""
    missing = max(0, total - len(embeddings))
    return torch.cat([embeddings, embeddings.new_zeros(missing, embeddings.shape[1])])


def collapse_zeros(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Replace the zero rows at the end by one of them.

    Args:
        embeddings: (L, D).

    Returns:
        (T, D) with at most one zero row at the end, and (T,) int64 how many each stands for;
        `repeat_interleave` by the counts undoes it.
    """
    filled = embeddings.any(1).nonzero()
    kept = int(filled[-1]) + 1 if filled.numel() else 0
    zeros = len(embeddings) - kept
    counts = torch.ones(kept + min(zeros, 1), dtype=torch.int64, device=embeddings.device)
    if zeros:
        counts[-1] = zeros
    return embeddings[: len(counts)], counts
