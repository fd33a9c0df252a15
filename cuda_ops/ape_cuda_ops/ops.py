"""The operators torch knows: ``ape_stream::msda``, ``::msda_fused`` and their gradients.

Being registered, they run under autocast, autograd, ``torch.compile(fullgraph=True)`` and
``torch.export`` (one node). What computes them is the registry's choice, by device.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - torch reads the annotations
from typing import Any

import torch
from torch import Tensor

from ape_cuda_ops import checks, registry
from ape_cuda_ops.backends import reference as plain
from ape_cuda_ops.backends.embedding_bag import by_bag
from ape_cuda_ops.backends.reference import level_sizes

__all__ = ["mask_pack", "msda", "msda_fused", "nms_grouped"]


def msda(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    starts: Sequence[int] | None = None,
) -> Tensor:
    """Multi-scale deformable attention with given locations and weights.

    Args:
        value: (B, S, H, D) float32, float16, bfloat16 or float64, the levels in order.
        shapes: height and width of each of the 1 to 8 levels, as Python integers.
        locations: (B, Q, H, L, P, 2) xy as fractions of the level, float32 (float64 for
            float64 values). Outside of [0, 1] and NaN read zero.
        weights: (B, Q, H, L, P), the dtype of value or of locations.
        starts: first token of each level, if the caller has them; only checked.

    Returns:
        (B, Q, H * D) in the dtype of value; sums are taken in float32 at least.

    Raises:
        TypeError: A dtype does not fit.
        ValueError: A shape, device or layout does not fit; the message names both sides.
    """
    checks.check_plain(value, shapes, locations, weights, starts)
    if value.dtype == torch.float64:  # for checking gradients: no kernel has it
        return by_bag.msda(value, shapes, locations, weights)
    return _msda(value, _flat(shapes), locations, weights)


def msda_fused(
    value: Tensor,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    shapes: Sequence[tuple[int, int]],
) -> Tensor:
    """Deformable attention from raw offsets and logits: softmax, locations and sums in one.

    Args:
        value: (B, S, H, D) float32, float16, bfloat16 or float64, the levels in order.
        reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes cxcywh, fractions, float32.
        offsets: (B, Q, H, L, P, 2) in pixels of the level (points) or in halves of the box
            divided by P (boxes); the dtype of value or float32.
        logits: (B, Q, H, L * P), the dtype of offsets.
        shapes: height and width of each of the 1 to 8 levels, as Python integers.

    Returns:
        (B, Q, H * D) in the dtype of value; sums are taken in float32 at least.

    Raises:
        TypeError: A dtype does not fit.
        ValueError: A shape, device or layout does not fit; the message names both sides.
    """
    checks.check_fused(value, reference, offsets, logits, shapes)
    if value.dtype == torch.float64:
        return by_bag.msda_fused(value, reference, offsets, logits, shapes)
    return _msda_fused(value, reference, offsets, logits, _flat(shapes))


def nms_grouped(
    boxes: Tensor, scores: Tensor, groups: Tensor, count: int, threshold: float
) -> Tensor:
    """Greedy non-maximum suppression of every group by itself.

    On a GPU the host never waits, so a CUDA graph can hold it.

    Args:
        boxes: (N, 4) float32 xyxy, or float64, which no kernel has and whose plain form waits.
        scores: (N,) float32, any order-preserving scores; of equals the earlier is stronger.
        groups: (N,) int64; a group is a level, a class, an image: boxes of different groups never
            touch. What is not in [0, count) is padding, which neither stays nor suppresses.
        count: how many groups there are, empty ones included.
        threshold: intersection over union above which the weaker box falls.

    Returns:
        (N,) bool in the order given: which boxes stay.

    Raises:
        TypeError: A dtype does not fit.
        ValueError: A shape, device or layout does not fit.
    """
    checks.check_boxes(boxes, scores, groups)
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    every = torch.arange(count + 1, device=groups.device)
    starts = torch.searchsorted(groups[order], every)
    keep = _nms_grouped(boxes[order], starts, threshold)
    return torch.zeros_like(keep).scatter(0, order, keep)


def mask_pack(
    logits: Tensor,
    size: tuple[int, int],
    filled: tuple[float, float] | None = None,
    threshold: float = 0.0,
) -> Tensor:
    """Mask logits to bits at full size: bilinear upsampling, threshold, packing in one.

    Pixel i of n reads the map at (i + 0.5) * filled / n - 0.5, clamped to the map; every product
    and sum is rounded to float32, lines before columns, so that a logit at the threshold itself
    falls the same way on every device.

    Args:
        logits: (N, h, w) float32, float16 or bfloat16.
        size: height H and width W of the masks in pixels.
        filled: rows and columns of the map, at its top left, that the masks cover, in (0, h] and
            (0, w]; may be fractional; None = all.
        threshold: a pixel is set where its logit is above this (0 is probability 1/2).

    Returns:
        (N, H, ceil(W / 32)) int32; bit k of word j is pixel 32 j + k of the line, the bits
        beyond W are 0.

    Raises:
        TypeError: The dtype does not fit.
        ValueError: A shape, the filled part or the layout does not fit.
    """
    rows, cols = filled or (float(logits.shape[-2]), float(logits.shape[-1]))
    checks.check_masks(logits, size, (rows, cols))
    return _mask_pack(logits, list(size), [rows, cols], threshold)


def _flat(shapes: Sequence[tuple[int, int]]) -> list[int]:
    """Heights and widths as the flat list an operator's schema allows."""
    return [side for shape in shapes for side in shape]


def _pairs(sides: Sequence[int]) -> list[tuple[int, int]]:
    """The opposite of :func:`_flat`."""
    return list(zip(sides[::2], sides[1::2], strict=True))


def _output(value: Tensor, queries: int) -> Tensor:
    """An empty (B, Q, H * D)."""
    return value.new_empty(value.shape[0], queries, value.shape[2] * value.shape[3])


@torch.library.custom_op("ape_stream::msda", mutates_args=())
def _msda(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return registry.choose(value.device).msda(value, _pairs(shapes), locations, weights)


@_msda.register_fake
def _(value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:  # noqa: ARG001
    return _output(value, locations.shape[1])


@torch.library.custom_op("ape_stream::msda_backward", mutates_args=())
def _msda_backward(
    grad: Tensor, value: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    kernels = registry.choose(value.device)
    return kernels.msda_backward(grad.contiguous(), value, _pairs(shapes), locations, weights)


@_msda_backward.register_fake
def _(
    grad: Tensor,  # noqa: ARG001
    value: Tensor,
    shapes: Sequence[int],  # noqa: ARG001
    locations: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    exact = torch.float32
    return (
        torch.empty_like(value, dtype=exact),
        torch.empty_like(locations),
        torch.empty_like(weights, dtype=exact),
    )


def _save_plain(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    value, shapes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)
    ctx.shapes = shapes


def _plain_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
    value, locations, weights = ctx.saved_tensors
    by_value, by_location, by_weight = _msda_backward(grad, value, ctx.shapes, locations, weights)
    return by_value.to(value.dtype), None, by_location, by_weight.to(weights.dtype)


_msda.register_autograd(_plain_gradients, setup_context=_save_plain)


@torch.library.custom_op("ape_stream::msda_fused", mutates_args=())
def _msda_fused(
    value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor, shapes: Sequence[int]
) -> Tensor:
    kernels = registry.choose(value.device)
    return kernels.msda_fused(value, reference, offsets, logits, _pairs(shapes))


@_msda_fused.register_fake
def _(
    value: Tensor,
    reference: Tensor,  # noqa: ARG001
    offsets: Tensor,
    logits: Tensor,  # noqa: ARG001
    shapes: Sequence[int],  # noqa: ARG001
) -> Tensor:
    return _output(value, offsets.shape[1])


@torch.library.custom_op("ape_stream::msda_fused_backward", mutates_args=())
def _msda_fused_backward(
    grad: Tensor,
    value: Tensor,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    shapes: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    kernels = registry.choose(value.device)
    return kernels.msda_fused_backward(
        grad.contiguous(), value, reference, offsets, logits, _pairs(shapes)
    )


@_msda_fused_backward.register_fake
def _(
    grad: Tensor,  # noqa: ARG001
    value: Tensor,
    reference: Tensor,  # noqa: ARG001
    offsets: Tensor,
    logits: Tensor,
    shapes: Sequence[int],  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor]:
    exact = torch.float32
    return (
        torch.empty_like(value, dtype=exact),
        torch.empty_like(offsets, dtype=exact),
        torch.empty_like(logits, dtype=exact),
    )


def _save_fused(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    *tensors, shapes = inputs
    ctx.save_for_backward(*tensors)
    ctx.shapes = shapes


def _fused_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor, None]:
    value, reference, offsets, logits = ctx.saved_tensors
    by_value, by_pixel, by_logit = _msda_fused_backward(
        grad, value, reference, offsets, logits, ctx.shapes
    )
    by_offset, by_reference = _through_locations(
        by_pixel, reference, offsets, _pairs(ctx.shapes), ctx.needs_input_grad[1]
    )
    return (
        by_value.to(value.dtype),
        by_reference,
        by_offset.to(offsets.dtype),
        by_logit.to(logits.dtype),
        None,
    )


def _through_locations(
    by_pixel: Tensor,
    reference: Tensor,
    offsets: Tensor,
    shapes: Sequence[tuple[int, int]],
    wanted: bool,  # noqa: FBT001 - autograd's own answer
) -> tuple[Tensor, Tensor | None]:
    """Gradients of offsets and reference from those of the pixel coordinates.

    A pixel coordinate is ``centre * size + offset - 1/2`` for points, where the offset's
    gradient is the pixel's own, and ``(centre + offset / P * side / 2) * size - 1/2`` for boxes.
    """
    by_location = by_pixel * level_sizes(shapes, by_pixel)[:, None, :]  # [B, Q, H, L, P, 2]
    by_centre = by_location.sum((2, 4)) if wanted else None  # [B, Q, L, 2]
    if reference.shape[-1] == 2:
        return by_pixel, by_centre
    scale = 0.5 / offsets.shape[-2]
    by_offset = by_location * (reference[:, :, None, :, None, 2:] * scale)
    if by_centre is None:
        return by_offset, None
    by_side = (by_location * offsets.to(by_location.dtype)).sum((2, 4)) * scale
    return by_offset, torch.cat((by_centre, by_side), -1)


_msda_fused.register_autograd(_fused_gradients, setup_context=_save_fused)


def _post_kernels(tensor: Tensor) -> Any:
    """What suppresses and packs a tensor: kernels, where they are in use and have its dtype."""
    if tensor.device.type == "cpu" or tensor.dtype == torch.float64:
        return plain
    kernels = registry.choose(tensor.device)
    return kernels if hasattr(kernels, "nms_grouped") else plain


@torch.library.custom_op("ape_stream::nms_grouped", mutates_args=())
def _nms_grouped(boxes: Tensor, starts: Tensor, threshold: float) -> Tensor:
    keep: Tensor = _post_kernels(boxes).nms_grouped(boxes, starts, threshold)
    return keep


@_nms_grouped.register_fake
def _(boxes: Tensor, starts: Tensor, threshold: float) -> Tensor:  # noqa: ARG001
    return boxes.new_empty(len(boxes), dtype=torch.bool)


@torch.library.custom_op("ape_stream::mask_pack", mutates_args=())
def _mask_pack(
    logits: Tensor, size: Sequence[int], filled: Sequence[float], threshold: float
) -> Tensor:
    words: Tensor = _post_kernels(logits).mask_pack(logits, tuple(size), tuple(filled), threshold)
    return words


@_mask_pack.register_fake
def _(logits: Tensor, size: Sequence[int], filled: Sequence[float], threshold: float) -> Tensor:  # noqa: ARG001
    return logits.new_empty((logits.shape[0], size[0], -(-size[1] // 32)), dtype=torch.int32)
