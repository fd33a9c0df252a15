"""The bank of prompts: every name and synonym at every step, and words of things that are absent.

A bank of all main names as negatives is what keeps the scores of absent words low; words from
outside the vocabulary are what keeps an unknown word from naming its nearest neighbour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["PromptBank"]

TOO_NEAR = 0.55
"""A strange word whose vector is nearer (cosine) to a known prompt might mean it: left out."""


class PromptBank:
    """Embedded prompts of a data set.

    Args:
        encode: texts to (N, D) vectors of length one.
        prompts: P prompts, the C main names first.
        truth: (P, C) bool, which prompt is true of which class.
        strangers: words that may mean nothing in the data.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], Tensor],
        prompts: Sequence[str],
        truth: Tensor,
        strangers: Sequence[str],
    ) -> None:
        self.encode = encode
        self.prompts = encode([p.casefold() for p in prompts])
        self.classes = truth.shape[1]
        self.truth = truth.float()
        strange = encode(strangers) if strangers else self.prompts[:0]
        far = (strange @ self.prompts.T).amax(1) < TOO_NEAR
        self.strangers = strange[far]

    @property
    def names(self) -> Tensor:
        """(C, D) vectors of the main names."""
        return self.prompts[: self.classes]

    def draw(
        self,
        classes: Tensor,
        strangers: int,
        generator: torch.Generator,
        chosen: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the prompts of one step and their truth.

        Args:
            classes: (B, G) int64 class of each region; its row of `chosen` where that is given.
            strangers: how many strange words to add.
            generator: source of chance.
            chosen: (K,) int64 classes that are asked for; None for all.

        Returns:
            (P + S, D) vectors and (B, G, P + S) float32 truth; P counts the prompts that are true
            of a class that is asked for.
        """
        prompts, known = self.prompts, self.truth
        if chosen is not None:
            about = known[:, chosen].any(1)
            prompts, known = prompts[about], known[about][:, chosen]
        count = min(strangers, len(self.strangers))
        rows = torch.randperm(len(self.strangers), generator=generator)[:count]
        vectors = torch.cat([prompts, self.strangers[rows]])
        truth = torch.cat([known, torch.zeros(len(rows), known.shape[1])])
        return vectors, truth.T[classes.cpu()]
