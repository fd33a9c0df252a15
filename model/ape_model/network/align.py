"""Region-sentence alignment: how well a region's state fits a prompt (APE, section 3.3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

__all__ = ["Align"]

LOGIT_LIMIT = 50_000.0  # GLIP's guard against overflow in 16 bits
PRIOR = 0.01
"""Score of an untrained region for any prompt."""


class Align(nn.Module):
    """Dot product of regions with projected prompts, and a bias that the prompt brings along."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.bias_lang = nn.Parameter(torch.zeros(text_width))
        self.bias0 = nn.Parameter(torch.full((1,), -math.log((1 - PRIOR) / PRIOR)))
        self.dot_product_projection_text = nn.Linear(text_width, width)

    def project(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, Dl) prompts to (B, L, C) vectors and (B, L) biases; a zero row stays usable."""
        # `normalize` divides a zero row by its epsilon: it stays zero, and only biases are left.
        unit = F.normalize(text, p=2, dim=-1)
        # The halving is in the official projection alone, not in its bias term.
        return self.dot_product_projection_text(unit / 2), unit @ self.bias_lang + self.bias0

    def forward(self, regions: Tensor, text: Tensor) -> Tensor:
        """Score regions against prompts.

        Args:
            regions: (B, Q, C).
            text: (B, L, Dl), or (1, L, Dl) shared by all images.

        Returns:
            (B, Q, L) logits.
        """
        return self.score(regions, *self.project(text))

    def score(self, regions: Tensor, vectors: Tensor, bias: Tensor) -> Tensor:
        """Score regions (B, Q, C) against what `project` made of prompts: (B, Q, L) logits."""
        # Divided by exp(log_scale), where CLIP multiplies by it.
        logits = regions @ vectors.mT / self.log_scale.exp() + bias[:, None]
        return logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
