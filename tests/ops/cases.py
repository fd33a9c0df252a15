"""Inputs, and the ONE table of tolerances for all backends."""

import torch

# Relative error (Frobenius) against the reference form in float64. float32 sums of some
# 80 terms lose a few units of 6e-8. A 16-bit result is rounded once, by at most 2^-11 or 2^-8
# relative (rms a third of that); half of that is added because offsets and logits are 16-bit
# inputs, which the float64 reference reads exactly.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}
GRADIENT_TOLERANCE = 1e-5


def relative(got, expected):
    got, expected = got.double(), expected.double()
    return ((got - expected).norm() / expected.norm().clamp(min=1e-12)).item()


def fused(shapes=((7, 5), (4, 3)), *, batch=2, queries=37, heads=2, dim=16, points=3, axes=2,
          dtype=torch.float32, spread=1.5, seed=0):  # fmt: skip
    """value, reference, offsets, logits; `queries=None` makes every token a query."""
    random = torch.Generator().manual_seed(seed)
    tokens, levels = sum(h * w for h, w in shapes), len(shapes)
    queries = tokens if queries is None else queries
    normal = lambda *size: torch.randn(size, generator=random)  # noqa: E731
    reference = torch.rand((batch, queries, levels, axes), generator=random) * 1.3 - 0.15
    return (
        normal(batch, tokens, heads, dim).to(dtype),
        reference,
        (normal(batch, queries, heads, levels, points, 2) * spread).to(dtype),
        normal(batch, queries, heads, levels * points).to(dtype),
    )


def exact(tensors):
    return [tensor.double() for tensor in tensors]
