"""Deformable attention by torch's `embedding_bag`: needs no compiler, differentiable.

A sample at (x, y) is the weighted sum of four value rows. So the output of one query and head is
the weighted sum of L * P * 4 rows of the table `value`, which is what `embedding_bag` computes
("a bag of rows"). It never stores the samples, which `grid_sample` does (1.8 GB per layer for a
1024-pixel image).
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

__all__ = [
    "EMBEDDING_BAG",
    "Corners",
    "EmbeddingBagKernels",
    "LinearTaps",
    "locations_and_weights",
]

MARGIN = 2.0
"""Far coordinates are clamped to this many pixels outside of the level: nothing is read there,
and the number fits an integer."""


class LinearTaps(NamedTuple):
    """The two pixels that linear interpolation reads along one axis of a level.

    Every tensor is (B, Q, H, P): a last axis of size 2 or 4 would make torch's loops short.
    """

    pixels: tuple[Tensor, Tensor]
    """int32 or int64, clamped to the level."""
    weights: tuple[Tensor, Tensor]
    """Interpolation weights, zero outside of the level."""
    slopes: tuple[Tensor, Tensor]
    """Derivatives of the weights by the pixel coordinate."""


class Corners(NamedTuple):
    """The four pixels around every sample, in the order 00, 01, 10, 11 of (y, x)."""

    rows: Tensor
    """(B, Q, H, P, L * 4) int32 or int64, row of `value` viewed as (B * S * H, D)."""
    levels: list[tuple[LinearTaps, LinearTaps]]
    """Taps along x and y, for each of the L levels."""

    def weights(self) -> list[Tensor]:
        """Bilinear weights, L * 4 times (B, Q, H, P)."""
        return [v * h for x, y in self.levels for v, h in _products(y.weights, x.weights)]

    def slopes(self) -> list[tuple[Tensor, Tensor]]:
        """Derivatives of the weights by x and by y, L * 4 pairs of (B, Q, H, P)."""
        by_x = [v * h for x, y in self.levels for v, h in _products(y.weights, x.slopes)]
        by_y = [v * h for x, y in self.levels for v, h in _products(y.slopes, x.weights)]
        return list(zip(by_x, by_y, strict=True))


def _products(
    vertical: tuple[Tensor, Tensor], horizontal: tuple[Tensor, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """The four pairs of taps, one for each corner."""
    return [(v, h) for v in vertical for h in horizontal]


def _linear_taps(coordinates: Tensor, size: int, dtype: torch.dtype) -> LinearTaps:
    """Taps of pixel coordinates (B, Q, H, P) along an axis of `size` pixels."""
    finite = torch.where(coordinates.isfinite(), coordinates, -MARGIN)
    near = finite.clamp(-MARGIN, size + MARGIN)
    floor = near.detach().floor()  # a step function: the gradient is that of the fraction
    fraction = near - floor
    # Outside pixels are clamped to a row that exists and weigh nothing.
    low, high = floor, floor + 1
    has_low, has_high = ((pixel >= 0) & (pixel < size) for pixel in (low, high))
    return LinearTaps(
        (low.clamp(0, size - 1).to(dtype), high.clamp(0, size - 1).to(dtype)),
        ((1 - fraction) * has_low, fraction * has_high),
        (-has_low.to(fraction.dtype), has_high.to(fraction.dtype)),
    )


def _corners(value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor) -> Corners:
    """The pixels that `locations` (B, Q, H, L, P, 2) read from `value` (B, S, H, D)."""
    B, S, H, _ = value.shape
    # int32 halves the memory of the indices, as long as every row has one.
    integer = torch.int32 if B * S * H < 2**31 else torch.int64
    image = torch.arange(B, dtype=integer, device=value.device).view(B, 1, 1, 1) * (S * H)
    # First row of the level, for each image and head.
    start = image + torch.arange(H, dtype=integer, device=value.device).view(1, 1, H, 1)
    rows, levels = [], []
    for (height, width), of_level in zip(shapes, locations.unbind(3), strict=True):
        x, y = of_level.unbind(-1)  # (B, Q, H, P)
        # Fractions to pixel coordinates, whose centres are integers (align_corners False).
        across = _linear_taps(x * width - 0.5, width, integer)
        down = _linear_taps(y * height - 0.5, height, integer)
        # Row of token (y, x) and head h: ((first + y * width + x) * H + h).
        lines = start + down.pixels[0] * (width * H), start + down.pixels[1] * (width * H)
        columns = across.pixels[0] * H, across.pixels[1] * H
        rows += [line + column for line, column in _products(lines, columns)]
        levels.append((across, down))
        start = start + height * width * H
    return Corners(torch.stack(rows, -1), levels)


def _row_weights(corners: Corners, attention: Tensor) -> Tensor:
    """Weight of each row: bilinear weight * attention (B, Q, H, L, P); (B, Q, H, P, L * 4)."""
    # The four corners of a sample share its attention.
    per_corner = [of_level for of_level in attention.unbind(3) for _ in range(4)]
    pairs = zip(corners.weights(), per_corner, strict=True)
    return torch.stack([bilinear * weight for bilinear, weight in pairs], -1)


def locations_and_weights(
    shapes: Sequence[tuple[int, int]],
    offsets_or_locations: Tensor,
    logits_or_weights: Tensor,
    reference: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """(B, Q, H, L, P, 2) locations and (B, Q, H, L, P) weights, from either input form."""
    if reference is None:
        return offsets_or_locations, logits_or_weights
    locations = sampling_locations(reference, offsets_or_locations, shapes)
    return locations, sampling_weights(logits_or_weights, len(shapes), reference)


class EmbeddingBagKernels(Kernels):
    """Deformable attention in torch alone; the forward is differentiable in every tensor."""

    def forward(
        self,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        offsets_or_locations: Tensor,
        logits_or_weights: Tensor,
        reference: Tensor | None = None,
    ) -> Tensor:
        """See `Kernels.forward`."""
        locations, weights = locations_and_weights(
            shapes, offsets_or_locations, logits_or_weights, reference
        )
        B, Q, H, L, P, _ = locations.shape
        D = value.shape[-1]
        corners = _corners(value, shapes, locations)
        row_weights = _row_weights(corners, weights)
        bags = functional.embedding_bag(
            corners.rows.view(B * Q * H, P * L * 4),
            value.to(locations.dtype).reshape(-1, D),  # (B * S * H, D)
            mode="sum",
            per_sample_weights=row_weights.view(B * Q * H, P * L * 4),
        )  # (B * Q * H, D)
        return bags.view(B, Q, H * D).to(value.dtype)

    def backward(
        self,
        grad: Tensor,
        value: Tensor,
        shapes: Sequence[tuple[int, int]],
        offsets_or_locations: Tensor,
        logits_or_weights: Tensor,
        reference: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernels.backward`."""
        locations, weights = locations_and_weights(
            shapes, offsets_or_locations, logits_or_weights, reference
        )
        by_value, by_pixel, by_weight = _gradients(grad, value, shapes, locations, weights)
        if reference is None:
            return by_value, by_pixel * level_sizes(shapes, locations)[:, None, :], by_weight
        mean = (weights * by_weight).sum((-1, -2), keepdim=True)  # backward of the softmax
        return by_value, by_pixel, (weights * (by_weight - mean)).flatten(-2)


def _gradients(
    grad: Tensor,
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, pixel coordinates and weights, in the dtype of `locations`.

    Written out, because autograd cannot run inside a registered operator.
    """
    D, L = value.shape[-1], len(shapes)
    corners = _corners(value, shapes, locations)
    row_weights = _row_weights(corners, weights)  # (B, Q, H, P, L * 4)
    table = value.to(locations.dtype).reshape(-1, D)  # (B * S * H, D)
    table_grad = torch.zeros_like(table)  # (B * S * H, D)
    output_grad = grad.to(locations.dtype).reshape(-1, D)  # (B * Q * H, D)
    dots = torch.empty_like(row_weights).view(output_grad.shape[0], -1)  # (B * Q * H, P * L * 4)
    flat_rows, flat_weights = corners.rows.view(dots.shape), row_weights.view(dots.shape)
    # One point, level and corner at a time: the samples of all would need P * L * 4 times D.
    for column in range(dots.shape[1]):
        row = flat_rows[:, column]
        dots[:, column] = (table[row] * output_grad).sum(-1)
        table_grad.index_add_(0, row, flat_weights[:, column, None] * output_grad)
    by_corner = dots.view(row_weights.shape).unbind(-1)  # L * 4 times (B, Q, H, P)
    # d output / d corner weight is the dot product; the rest is the chain rule of the weights.
    by_weight = [w * d for w, d in zip(corners.weights(), by_corner, strict=True)]
    by_coordinate = [
        torch.stack((by_x * d, by_y * d), -1)
        for (by_x, by_y), d in zip(corners.slopes(), by_corner, strict=True)
    ]
    pixel_grad = _sum_corners(by_coordinate, L) * weights.unsqueeze(-1)
    pixel_grad = torch.where(locations.isfinite(), pixel_grad, 0)
    return table_grad.view(value.shape), pixel_grad, _sum_corners(by_weight, L)


def _sum_corners(per_corner: list[Tensor], levels: int) -> Tensor:
    """L * 4 times (B, Q, H, P, ...) to (B, Q, H, L, P, ...)."""
    sums = [torch.stack(per_corner[4 * k : 4 * k + 4]).sum(0) for k in range(levels)]
    return torch.stack(sums, 3)


EMBEDDING_BAG = EmbeddingBagKernels()
