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

from ape_cuda_ops.backends.base import Kernels
from ape_cuda_ops.backends.reference import level_sizes, sampling_locations, sampling_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["Axis", "BagKernels", "Corners", "as_given", "by_bag"]

MARGIN = 2.0
"""Pixels beyond the border to which far locations are clamped: they read nothing there, and
the clamped number is safe to convert to an integer."""


class Axis(NamedTuple):
    """The two pixels around every sample of a level along one axis, each (B, Q, H, P)."""

    pixels: tuple[Tensor, Tensor]
    """int32 or int64, clamped into the image."""
    weights: tuple[Tensor, Tensor]
    """Linear weights, zero outside the image."""
    slopes: tuple[Tensor, Tensor]
    """Derivatives of the weights by the coordinate."""


class Corners(NamedTuple):
    """The four pixels around every sample: corners line by line, within levels, within points."""

    rows: Tensor
    """(B, Q, H, P, L * 4) int32 or int64 row of ``value`` seen as (B * S * H, D)."""
    levels: list[tuple[Axis, Axis]]
    """Columns and lines of each of the L levels."""

    def weights(self) -> list[Tensor]:
        """Bilinear weights, L * 4 times (B, Q, H, P)."""
        return [v * h for across, down in self.levels for v, h in _pairs(down[1], across[1])]

    def slopes(self) -> list[tuple[Tensor, Tensor]]:
        """Derivatives of the weights by x and by y, L * 4 pairs of (B, Q, H, P)."""
        by_x = [v * h for across, down in self.levels for v, h in _pairs(down[1], across[2])]
        by_y = [v * h for across, down in self.levels for v, h in _pairs(down[2], across[1])]
        return list(zip(by_x, by_y, strict=True))


def _pairs(
    down: tuple[Tensor, Tensor], across: tuple[Tensor, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    return [(line, column) for line in down for column in across]


def _axis(pixels: Tensor, size: int, dtype: torch.dtype) -> Axis:
    """Neighbours of coordinates (B, Q, H, P) along an axis of `size` pixels.

    Corners as a last axis of two or four would keep every operation from running wide.
    """
    finite = torch.where(pixels.isfinite(), pixels, -MARGIN)
    inside = finite.clamp(-MARGIN, size + MARGIN)
    floor = inside.detach().floor()
    part = inside - floor
    low, high = floor, floor + 1
    low_in, high_in = ((n >= 0) & (n < size) for n in (low, high))
    return Axis(
        (low.clamp(0, size - 1).to(dtype), high.clamp(0, size - 1).to(dtype)),
        ((1 - part) * low_in, part * high_in),
        (-low_in.to(part.dtype), high_in.to(part.dtype)),
    )


def _corners(value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor) -> Corners:
    """The pixels that ``locations`` (B, Q, H, L, P, 2) read from ``value`` (B, S, H, D)."""
    B, S, H, _ = value.shape
    small = torch.int32 if B * S * H < 2**31 else torch.int64
    image = torch.arange(B, dtype=small, device=value.device).view(B, 1, 1, 1) * (S * H)
    start = image + torch.arange(H, dtype=small, device=value.device).view(1, 1, H, 1)
    rows, levels = [], []
    for (height, width), places in zip(shapes, locations.unbind(3), strict=True):
        x, y = places.unbind(-1)
        across, down = _axis(x * width - 0.5, width, small), _axis(y * height - 0.5, height, small)
        lines = start + down.pixels[0] * (width * H), start + down.pixels[1] * (width * H)
        columns = across.pixels[0] * H, across.pixels[1] * H
        rows += [line + column for line, column in _pairs(lines, columns)]
        levels.append((across, down))
        start = start + height * width * H
    return Corners(torch.stack(rows, -1), levels)


def _mixing(corners: Corners, weights: Tensor) -> Tensor:
    """(B, Q, H, P, L * 4): what each row counts for, of attention weights (B, Q, H, L, P)."""
    attention = [of_level for of_level in weights.unbind(3) for _ in range(4)]
    pairs = zip(corners.weights(), attention, strict=True)
    return torch.stack([bilinear * of_level for bilinear, of_level in pairs], -1)


def as_given(
    shapes: Sequence[tuple[int, int]],
    positions: Tensor,
    mixing: Tensor,
    reference: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Locations and weights, for a backend that has no other form: made when not given."""
    if reference is None:
        return positions, mixing
    locations = sampling_locations(reference, positions, shapes)
    return locations, sampling_weights(mixing, len(shapes), reference)


class BagKernels(Kernels):
    """The operators in plain torch; the forward ones are differentiable in every tensor."""

    def forward(
        self,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        positions: Tensor,
        mixing: Tensor,
        reference: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`ape_cuda_ops.backends.base.Kernels.forward`."""
        locations, weights = as_given(shapes, positions, mixing, reference)
        B, Q, H, L, P, _ = locations.shape
        D = value.shape[-1]
        corners = _corners(value, shapes, locations)
        shares = _mixing(corners, weights)
        bags = functional.embedding_bag(
            corners.rows.view(B * Q * H, P * L * 4),
            value.to(locations.dtype).reshape(-1, D),
            mode="sum",
            per_sample_weights=shares.view(B * Q * H, P * L * 4),
        )
        return bags.view(B, Q, H * D).to(value.dtype)

    def backward(
        self,
        grad: Tensor,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        positions: Tensor,
        mixing: Tensor,
        reference: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`ape_cuda_ops.backends.base.Kernels.backward`."""
        locations, weights = as_given(shapes, positions, mixing, reference)
        by_value, by_pixel, by_weight = _gradients(grad, value, shapes, locations, weights)
        if reference is None:
            return by_value, by_pixel * level_sizes(shapes, locations)[:, None, :], by_weight
        mean = (weights * by_weight).sum((-1, -2), keepdim=True)
        return by_value, by_pixel, (weights * (by_weight - mean)).flatten(-2)


def _gradients(
    grad: Tensor,
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, pixel coordinates and weights, all in the dtype of ``locations``.

    Written out, because autograd may not run inside an operator.
    """
    D, L = value.shape[-1], len(shapes)
    corners = _corners(value, shapes, locations)
    mixing = _mixing(corners, weights)
    table = value.to(locations.dtype).reshape(-1, D)
    table_grad = torch.zeros_like(table)
    output_grad = grad.to(locations.dtype).reshape(-1, D)  # [B*Q*H, D]
    dots = torch.empty_like(mixing).view(output_grad.shape[0], -1)  # [B*Q*H, P*L*4]
    flat_rows, flat_mixing = corners.rows.view(dots.shape), mixing.view(dots.shape)
    # One point, level and corner at a time: the samples of all may not fit.
    for column in range(dots.shape[1]):
        row = flat_rows[:, column]
        dots[:, column] = (table[row] * output_grad).sum(-1)
        table_grad.index_add_(0, row, flat_mixing[:, column, None] * output_grad)
    by_corner = dots.view(mixing.shape).unbind(-1)  # L * 4 times [B, Q, H, P]
    by_weight = [w * d for w, d in zip(corners.weights(), by_corner, strict=True)]
    by_place = [
        torch.stack((by_x * d, by_y * d), -1)
        for (by_x, by_y), d in zip(corners.slopes(), by_corner, strict=True)
    ]
    pixel_grad = _sum_corners(by_place, L) * weights.unsqueeze(-1)
    pixel_grad = torch.where(locations.isfinite(), pixel_grad, 0)
    return table_grad.view(value.shape), pixel_grad, _sum_corners(by_weight, L)


def _sum_corners(parts: list[Tensor], levels: int) -> Tensor:
    """L * 4 times (B, Q, H, P, ...) to (B, Q, H, L, P, ...)."""
    sums = [torch.stack(parts[4 * k : 4 * k + 4]).sum(0) for k in range(levels)]
    return torch.stack(sums, 3)


by_bag = BagKernels()
