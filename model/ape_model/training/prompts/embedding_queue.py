"""The embedding bank of APE: a first-in-first-out queue of recent phrases for each data set.

The released models see the phrases of a call and, behind them, older ones of the same data set, so
earlier calls change later results. A queue starts with zero vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["EmbeddingQueue"]


class EmbeddingQueue:
    """Recent phrases of every data set, newest first.

    Args:
        sizes: Phrases kept of each data set.
        text_width: D, channels of a phrase.
    """

    def __init__(self, sizes: tuple[int, ...], text_width: int) -> None:
        self._rows = [torch.zeros(size, text_width) for size in sizes]

    # The length of a queue never changes: it starts with zeros and loses its oldest rows.

    def extend(self, embeddings: Tensor, dataset: int) -> Tensor:
        """Put phrases in front of a data set's queue, and return what the network sees.

        Args:
            embeddings: (L, D) of this call.
            dataset: Index of the data set.

        Returns:
            (max(L, size), D) these phrases, then the older ones.
        """
        queued = self._rows[dataset].to(embeddings)
        size = len(queued)
        # More phrases than the queue holds are all seen in this call; only the queue is cut.
        visible = torch.cat([embeddings, queued])[: max(len(embeddings), size)]
        self._rows[dataset] = visible[:size].clone()
        return visible

    def older(self, dataset: int) -> Tensor:
        """(N, D) the queued phrases of a data set, newest first, without the zeros at its start."""
        queued = self._rows[dataset]
        return queued[queued.any(1)]  # vectors of phrases have length one: none is all zero

    def state(self) -> list[Tensor]:
        """Return the rows of every queue, (size, D) each, for `load`."""
        return list(self._rows)

    def load(self, rows: list[Tensor]) -> None:
        """Restore the rows of queues of the same sizes.

        Raises:
            ValueError: the sizes differ.
        """
        have, want = ([tuple(r.shape) for r in queues] for queues in (rows, self._rows))
        if have != want:
            raise ValueError(f"queues of sizes {have} do not fit those of {want}")
        self._rows = [row.clone() for row in rows]
