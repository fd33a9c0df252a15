"""Region-sentence alignment: how well a region's state fits a prompt (APE, section 3.3).

A float32 product differs in its last bits with the shape of its operands, the processor and the
library. `ExactAlignment` rounds both sides to fixed point first, a state to 16 bits and a text to
so few that float64 holds every partial sum (decisions/0009): its scores do not depend on what is
computed together, and an index holds a state in 16 bits.
`ape_stream.index.alignment` has the same arithmetic in NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

__all__ = ["LOGIT_LIMIT", "Align", "ExactAlignment", "fixed_point", "round_states"]

LOGIT_LIMIT: Final = 50_000.0  # GLIP's guard against overflow in 16 bits
_AT_ONCE: Final = 2**24
"""Numbers of gathered rows held at a time (128 MB)."""
STATE_BITS: Final = 15
"""And a sign: of a number of a state, below the largest one."""
_LEAST_EXPONENT: Final = -100
"""Smaller states are as good as 0, and a float32 holds every number of rounded ones."""
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


def fixed_point(values: Tensor, width: int) -> Tensor:
    """Round each row to multiples of one power of two, so that its products sum up exactly.

    Args:
        values: (..., C) finite, of any dtype.
        width: How many products are summed up at most.

    Returns:
        (..., C) float64: of two such rows, every sum of up to `width` products is exact.
    """
    # A product of two b-bit integers has 2 b bits, a sum of `width` of them log2(width) more.
    bits = (53 - (width - 1).bit_length()) // 2
    wide = values.double()
    _, exponent = wide.abs().amax(-1, keepdim=True).frexp()  # largest < 2^exponent
    # Products with powers of two are exact.
    return (wide * _power_of_two(bits - exponent)).round() * _power_of_two(exponent - bits)


def round_states(states: Tensor) -> Tensor:
    """Round (..., C) finite states to 15 bits below the largest number of each: float64."""
    wide = states.double()
    _, exponent = wide.abs().amax(-1, keepdim=True).frexp()
    bits = STATE_BITS - exponent.clamp(min=_LEAST_EXPONENT)
    # The largest may be rounded up to one more than 16 bits have room for.
    most = 2**STATE_BITS - 1
    return (wide * _power_of_two(bits)).round().clamp(-most, most) * _power_of_two(-bits)


def _power_of_two(exponents: Tensor) -> Tensor:
    """2^exponents as float64, made of its bits: `ldexp` takes it from a power in float32."""
    return (exponents.long() + 1023 << 52).view(torch.float64)


@dataclass(frozen=True, slots=True, eq=False)
class ExactAlignment:
    """The alignment of the queries of a batch with P prompts, one pair at a time."""

    states: Tensor
    """(B, Q, C) of the queries."""
    vectors: Tensor
    """(P, C) float32 projected prompts."""
    biases: Tensor
    """(P,) float32."""
    scale: Tensor
    """() float32, divides products."""

    def of_first(self, prompts: int) -> ExactAlignment:
        """The same without the prompts after these."""
        return replace(self, vectors=self.vectors[:prompts], biases=self.biases[:prompts])

    def logits(self, images: Tensor, queries: Tensor, prompts: Tensor) -> Tensor:
        """(N,) float32 logits of N pairs: (N,) int64 image, query and prompt of each."""
        C = self.states.shape[-1]
        states = round_states(self.states)
        # The smaller of both: all prompts once, or those of the pairs.
        once = len(self.vectors) <= len(prompts)
        vectors = fixed_point(self.vectors, C) if once else self.vectors
        step = max(1, _AT_ONCE // C)
        products = [torch.zeros(0, dtype=torch.float64, device=states.device)]
        for first in range(0, len(prompts), step):
            part = slice(first, first + step)
            own = vectors[prompts[part]]
            own = own if once else fixed_point(own, C)
            products.append((states[images[part], queries[part]] * own).sum(-1))
        logits = torch.cat(products) / self.scale.double() + self.biases[prompts].double()
        return logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT).float()

    def error(self) -> Tensor:
        """(P,) how far logits of a plain product may be from exact ones."""
        states, C = self.states, self.states.shape[-1]
        # Sums of C products are in float32 in any dtype; operands, scale, bias and result are
        # rounded once each. On a GPU a user may have allowed products of 10 bits.
        kind = torch.finfo(states.dtype).eps
        highest = torch.get_float32_matmul_precision() == "highest"
        rounding = C * torch.finfo(torch.float32).eps + 4 * (kind if highest else max(kind, 2**-7))
        lengths = self.vectors.norm(dim=-1) / self.scale
        largest = states.float().norm(dim=-1).amax() * lengths
        # Each of C numbers of a state is rounded by half a step, which is at most 2^-15 of the
        # largest; a float32 holds that of the smallest states.
        steps = states.float().abs().amax().clamp(min=2.0**_LEAST_EXPONENT)
        rounded = 1.01 * math.sqrt(C) * 2.0**-STATE_BITS * steps * lengths
        return rounding * (largest + self.biases.abs()) + rounded
