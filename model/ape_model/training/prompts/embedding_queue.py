"""The official bank of recent phrases, for parity: its history changes later results.

Beside the phrases of a call, the released models see old phrases (or zero vectors) of the same
dataset. Zero vectors are not inert: after LayerNorm they are its bias, take part in fusion and are
scored. They are all equal, though, so one of them with its count is the same as all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["PhraseBank", "collapse_zeros", "pad_zeros"]


def pad_zeros(embeddings: Tensor, total: int) -> Tensor:
    """(L, Dl) embeddings with zero rows up to `total`, if they are fewer."""
    missing = max(0, total - embeddings.shape[0])
    return torch.cat([embeddings, embeddings.new_zeros(missing, embeddings.shape[1])])


def collapse_zeros(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Replace the zero rows at the end by one of them.

    Args:
        embeddings: (L, Dl).

    Returns:
        (T, Dl) with at most one zero row at the end, and (T,) int64 how many each stands for;
        `repeat_interleave` by the counts undoes it.
    """
    filled = embeddings.any(1).nonzero()
    kept = int(filled[-1]) + 1 if filled.numel() else 0
    zeros = embeddings.shape[0] - kept
    counts = torch.ones(kept + min(zeros, 1), dtype=torch.int64, device=embeddings.device)
    if zeros:
        counts[-1] = zeros
    return embeddings[: counts.shape[0]], counts


class PhraseBank:
    """Recent phrases of every dataset, newest first."""

    def __init__(self, sizes: tuple[int, ...], text_width: int) -> None:
        self._rows = [torch.zeros(size, text_width) for size in sizes]

    def extend(self, embeddings: Tensor, dataset: int) -> Tensor:
        """Put phrases before a dataset's bank, keep the newest, and return what the model sees.

        Args:
            embeddings: (L, Dl) of this call.
            dataset: which bank, from 0.

        Returns:
            (max(L, size), Dl) the phrases, then the bank's older ones.
        """
        bank = self._rows[dataset].to(embeddings)
        size = bank.shape[0]
        seen = torch.cat([embeddings, bank])[: max(embeddings.shape[0], size)]
        self._rows[dataset] = seen[:size].clone()
        return seen

    def older(self, dataset: int) -> Tensor:
        """(N, Dl) what a dataset's bank holds, newest first, without the zeros of its beginning."""
        bank = self._rows[dataset]
        return bank[bank.any(1)]

    def state(self) -> list[Tensor]:
        """Return the rows of every bank, (size, Dl) each, for `load`."""
        return list(self._rows)

    def load(self, rows: list[Tensor]) -> None:
        """Take up the state of a bank of the same sizes.

        Raises:
            ValueError: the sizes differ.
        """
        have, want = ([tuple(r.shape) for r in banks] for banks in (rows, self._rows))
        if have != want:
            raise ValueError(f"banks of sizes {have} do not fit those of {want}")
        self._rows = [row.clone() for row in rows]
