"""Deformable attention as a weighted bag of value rows: plain torch, needs no compiler.

A sample at (x, y) is the sum of four value rows with bilinear weights, so the output row of
one (query, head) is one bag of L * P * 4 rows. ``embedding_bag`` sums bags without ever
storing the samples (1.8 GB a layer at 1024 pixels in the ``grid_sample`` form), and is
differentiable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from ape_cuda_ops.reference import level_sizes, sampling_locations, sampling_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["Corners", "msda", "msda_backward", "msda_fused", "msda_fused_backward", "prepare"]

MARGIN = 2.0
"""Pixels beyond the border to which far locations are clamped: they read nothing there, and
the clamped number is safe to convert to an integer."""


def prepare() -> None:
    """Nothing to do: torch is there."""


class Corners(NamedTuple):
    """The four pixels around every sample."""

    rows: Tensor
    """(B, Q, H, L, P, 4) int32 or int64 row of ``value`` seen as (B * S * H, D)."""
    weights: Tensor
    """(B, Q, H, L, P, 4) bilinear weight, zero outside the image."""
    part: Tensor
    """(B, Q, H, L, P, 2) how far right of and below the first pixel, in [0, 1)."""
    valid: Tensor
    """(B, Q, H, L, P, 4) bool: the pixel is inside the image."""


def _bilinear(pixels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clamped integer xy, weights, fractions and validity of corners of (..., 2) coordinates.

    The corners come in the order (0, 0), (1, 0), (0, 1), (1, 1) of (x, y).
    """
    finite = torch.where(pixels.isfinite(), pixels, -MARGIN)
    inside = torch.minimum(finite.clamp(min=-MARGIN), sizes + MARGIN)
    floor = inside.detach().floor()
    part = inside - floor
    step = torch.tensor([(0, 0), (1, 0), (0, 1), (1, 1)], dtype=part.dtype, device=part.device)
    corner = floor.unsqueeze(-2) + step  # [..., 4, 2]
    valid = ((corner >= 0) & (corner < sizes.unsqueeze(-2))).all(-1)
    right, down = part.unbind(-1)
    left, up = 1 - right, 1 - down
    weights = torch.stack((up * left, up * right, down * left, down * right), -1) * valid
    corner = torch.minimum(corner.clamp(min=0), sizes.unsqueeze(-2) - 1)
    return corner, weights, part, valid


def _slopes(corners: Corners) -> Tensor:
    """Derivative of the corners' weights by the pixel coordinates; (B, Q, H, L, P, 4, 2)."""
    right, down = corners.part.unbind(-1)
    left, up = 1 - right, 1 - down
    by_x = torch.stack((-up, up, -down, down), -1)
    by_y = torch.stack((-left, -right, left, right), -1)
    return torch.stack((by_x, by_y), -1) * corners.valid.unsqueeze(-1)


def _corners(value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor) -> Corners:
    """The pixels that ``locations`` (B, Q, H, L, P, 2) read from ``value`` (B, S, H, D)."""
    B, S, H, _ = value.shape
    sizes = level_sizes(shapes, locations)[:, None, :]  # [L, 1, 2]
    corner, weights, part, valid = _bilinear(locations * sizes - 0.5, sizes)
    small = torch.int32 if B * S * H < 2**31 else torch.int64
    column, line = corner.to(small).unbind(-1)  # [B, Q, H, L, P, 4]
    starts, total = [], 0
    for height, width in shapes:
        starts.append(total)
        total += height * width
    device = value.device
    widths = torch.tensor([w for _, w in shapes], dtype=small, device=device)[:, None, None]
    first = torch.tensor(starts, dtype=small, device=device)[:, None, None]
    image = torch.arange(B, dtype=small, device=device).view(B, 1, 1, 1, 1, 1)
    head = torch.arange(H, dtype=small, device=device).view(1, 1, H, 1, 1, 1)
    token = image * S + first + line * widths + column
    return Corners(token * H + head, weights, part, valid)


def msda(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """See :func:`ape_cuda_ops.reference.msda`; differentiable in every tensor."""
    B, Q, H, L, P, _ = locations.shape
    D = value.shape[-1]
    corners = _corners(value, shapes, locations)
    mixing = corners.weights * weights.to(locations.dtype).unsqueeze(-1)
    bags = functional.embedding_bag(
        corners.rows.view(B * Q * H, L * P * 4),
        value.to(locations.dtype).reshape(-1, D),
        mode="sum",
        per_sample_weights=mixing.view(B * Q * H, L * P * 4),
    )
    return bags.view(B, Q, H * D).to(value.dtype)


def msda_fused(
    value: Tensor,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    shapes: Sequence[tuple[int, int]],
) -> Tensor:
    """See :func:`ape_cuda_ops.reference.msda_fused`; differentiable in every tensor."""
    locations = sampling_locations(reference, offsets, shapes)
    return msda(value, shapes, locations, sampling_weights(logits, len(shapes), reference))


def msda_backward(
    grad: Tensor,
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`msda` where autograd may not run (inside an operator).

    Args:
        grad: (B, Q, H * D), gradient of the output.
        value: (B, S, H, D).
        shapes: height and width of each of the L levels.
        locations: (B, Q, H, L, P, 2).
        weights: (B, Q, H, L, P).

    Returns:
        Gradients of value, locations and weights, all in the dtype of ``locations``.
    """
    D = value.shape[-1]
    corners = _corners(value, shapes, locations)
    rows, bilinear = corners.rows, corners.weights
    mixing = bilinear * weights.to(locations.dtype).unsqueeze(-1)
    table = value.to(locations.dtype).reshape(-1, D)
    table_grad = torch.zeros_like(table)
    output_grad = grad.to(locations.dtype).reshape(-1, D)  # [B*Q*H, D]
    dots = torch.empty_like(mixing).view(output_grad.shape[0], -1)  # [B*Q*H, L*P*4]
    flat_rows, flat_mixing = rows.view(dots.shape), mixing.view(dots.shape)
    for column in range(dots.shape[1]):  # one at a time: all samples at once may not fit
        row = flat_rows[:, column]
        dots[:, column] = (table[row] * output_grad).sum(-1)
        table_grad.index_add_(0, row, flat_mixing[:, column, None] * output_grad)
    dots = dots.view(mixing.shape)
    pixel_grad = (_slopes(corners) * dots.unsqueeze(-1)).sum(-2) * weights.unsqueeze(-1)
    pixel_grad = torch.where(locations.isfinite(), pixel_grad, 0)
    sizes = level_sizes(shapes, locations)[:, None, :]
    return table_grad.view(value.shape), pixel_grad * sizes, (bilinear * dots).sum(-1)


def msda_fused_backward(
    grad: Tensor,
    value: Tensor,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    shapes: Sequence[tuple[int, int]],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`msda_fused` by value, pixel coordinates and logits.

    Returns:
        (B, S, H, D), (B, Q, H, L, P, 2) and (B, Q, H, L * P), in the dtype of ``reference``.
        The second is by the pixel coordinate itself (x = location * width - 1/2), from which
        those of ``offsets`` and ``reference`` follow by the chain rule.
    """
    locations = sampling_locations(reference, offsets, shapes)
    weights = sampling_weights(logits, len(shapes), reference)
    value_grad, location_grad, weight_grad = msda_backward(grad, value, shapes, locations, weights)
    pixel_grad = location_grad / level_sizes(shapes, reference)[:, None, :]
    mean = (weights * weight_grad).sum((-1, -2), keepdim=True)
    return value_grad, pixel_grad, (weights * (weight_grad - mean)).flatten(-2)
