"""Region-sentence alignment: how well a region's state fits a prompt (APE, section 3.3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ape_model.network.exact import LOGIT_LIMIT, ExactAlignment, fixed_point

__all__ = ["Align"]

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

    def project_exactly(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """As `project`, in float32: each row is a function of that prompt alone (see `exact`)."""
        head, width = self.dot_product_projection_text, text.shape[-1]
        exact = fixed_point(text, width)
        norms = exact.square().sum(-1, keepdim=True).sqrt()
        unit = fixed_point(exact / norms.clamp(min=1e-12), width)
        vectors = unit @ fixed_point(head.weight, width).mT / 2 + head.bias.double()
        biases = unit @ fixed_point(self.bias_lang, width) + self.bias0.double()
        return vectors.float(), biases.float()

    def exactly(self, regions: Tensor, vectors: Tensor, biases: Tensor) -> ExactAlignment:
        """The exact form of `score`: regions (B, Q, C), and (1, L, C), (1, L) of the prompts."""
        return ExactAlignment(regions, vectors[0], biases[0], self.scale)

    def parts(self) -> dict[str, Tensor]:
        """float32 values that score states: see `ape_stream.values.queries.NetworkFacts`."""
        head = self.dot_product_projection_text
        named = {
            "weight": head.weight,
            "offset": head.bias,
            "bias_weight": self.bias_lang,
            "bias_offset": self.bias0.reshape(()),
        }
        return {name: value.float() for name, value in named.items()} | {"scale": self.scale}

    @property
    def scale(self) -> Tensor:
        """() float32, divides products: exp(log_scale), where CLIP multiplies by it."""
        # Rounded from float64: the last bit of a float32 exponential depends on the processor.
        return self.log_scale.double().exp().float().squeeze()

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
        products = regions @ vectors.to(regions.dtype).mT
        logits = products / self.log_scale.exp() + bias.to(regions.dtype)[:, None]
        return logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
