"""Alignment whose scores are the same numbers whatever is computed together (decisions/0009).

A float32 product differs in its last bits with the shape of its operands, the processor and the
library. Here both sides are rounded to fixed point first, with so few bits that float64 holds every
partial sum: no order of summation can change the result. `ape_stream.index.alignment` has the same
arithmetic in NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

__all__ = ["LOGIT_LIMIT", "ExactAlignment", "fixed_point"]

LOGIT_LIMIT: Final = 50_000.0  # GLIP's guard against overflow in 16 bits
_AT_ONCE: Final = 2**24
"""Numbers of gathered rows held at a time (128 MB)."""


def fixed_point(values: Tensor, width: int) -> Tensor:
    """Round each row to multiples of one power of two, so that its products sum up exactly.

    Args:
        values: (..., C) finite, of any dtype.
        width: how many products are summed up at most.

    Returns:
        (..., C) float64: of two such rows, every sum of up to `width` products is exact.
    """
    # A product of two b-bit integers has 2 b bits, a sum of `width` of them log2(width) more.
    bits = (53 - (width - 1).bit_length()) // 2
    wide = values.double()
    _, exponent = wide.abs().amax(-1, keepdim=True).frexp()  # largest < 2^exponent
    # Products with powers of two are exact.
    return (wide * _power_of_two(bits - exponent)).round() * _power_of_two(exponent - bits)


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
        states = fixed_point(self.states, C)
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
        largest = states.float().norm(dim=-1).amax() * self.vectors.norm(dim=-1) / self.scale
        return rounding * (largest + self.biases.abs())
