"""Inputs and the ONE tolerance table that every backend is judged by."""

import torch

# Relative error (Frobenius) against the plain twin in float64. float32 sums of some 80 terms lose
# a few units of 6e-8; a 16-bit result is rounded once, to 2^-11 or 2^-8 relative at most
# (rms about a third); half of that again because its offsets and logits are 16-bit inputs
# that the float64 twin reads exactly.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}
GRADIENT_TOLERANCE = 1e-5


def relative(got, wanted):
    got, wanted = got.double(), wanted.double()
    return ((got - wanted).norm() / wanted.norm().clamp(min=1e-12)).item()


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
