"""The names of a data set as prompts, and words of other things as negatives.

All main names as negatives keep the scores of absent names low; words from outside the vocabulary
keep an unknown word from finding its nearest neighbour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["NegativeSampler"]

TOO_NEAR = 0.55
"""Cosine to a prompt from which another word might mean the same, and is no negative."""


class NegativeSampler:
    """Embedded names of a data set, and negatives to draw from.

    Args:
        encode: Texts to (N, D) vectors of length one.
        prompts: P prompts, the C main names first.
        truth: (P, C) bool, whether a prompt is true of a class.
        negative_words: Words that mean nothing in the data; those near to a prompt are left out.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], Tensor],
        prompts: Sequence[str],
        truth: Tensor,
        negative_words: Sequence[str],
    ) -> None:
        self.encode = encode
        self.prompts = encode([p.casefold() for p in prompts])
        self.classes = truth.shape[1]
        self.truth = truth.float()
        words = encode(negative_words) if negative_words else self.prompts[:0]
        far = (words @ self.prompts.T).amax(1) < TOO_NEAR  # (N,)
        self.negative_words = words[far]

    @property
    def names(self) -> Tensor:
        """(C, D) vectors of the main names."""
        return self.prompts[: self.classes]

    def draw(
        self,
        classes: Tensor,
        negative_words: int,
        generator: torch.Generator,
        chosen: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the prompts of one step and their truth.

        Args:
            classes: (B, G) int64 class of each region; its row of `chosen` where that is given.
            negative_words: How many of them to add.
            generator: Source of chance.
            chosen: (K,) int64 classes to keep the prompts of; None: all.

        Returns:
            (P + N, D) vectors and (B, G, P + N) float32 truth; P counts the prompts that are true
            of a kept class.
        """
        prompts, truth = self.prompts, self.truth
        if chosen is not None:
            about = truth[:, chosen].any(1)  # (P,)
            prompts, truth = prompts[about], truth[about][:, chosen]
        count = min(negative_words, len(self.negative_words))
        rows = torch.randperm(len(self.negative_words), generator=generator)[:count]
        vectors = torch.cat([prompts, self.negative_words[rows]])
        truth = torch.cat([truth, torch.zeros(len(rows), truth.shape[1])])  # (P + N, C or K)
        return vectors, truth.T[classes.cpu()]  # each region takes the row of its class
