"""The operators torch knows: deformable attention, its gradients, NMS and mask packing.

They are registered as `torch.ops.ape_stream.*`, so they work under autocast, autograd,
`torch.compile(fullgraph=True)` and `torch.export` (one node). The registry chooses what
computes them, by device.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - torch reads the annotations
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

from ape_cuda_ops import checks, registry
from ape_cuda_ops.backends.embedding_bag import EMBEDDING_BAG
from ape_cuda_ops.backends.reference import level_sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_cuda_ops.backends.base import Kernels

__all__ = ["mask_pack", "msda", "msda_fused", "nms_grouped"]

F = TypeVar("F", bound="Callable[..., Any]")
_LIBRARY = torch.library.Library("ape_stream", "FRAGMENT")


def msda(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Multi-scale deformable attention from sampling locations and attention weights.

    Args:
        value: (B, S, H, D) float32, float16, bfloat16 or float64, the levels in order.
        shapes: Height and width of each of the 1 to 8 levels, as Python integers.
        locations: (B, Q, H, L, P, 2) xy as fractions of the level, float32 (float64 for
            float64 values). Outside of [0, 1] and NaN read zero.
        weights: (B, Q, H, L, P), the dtype of value or of locations.

    Returns:
        (B, Q, H * D) in the dtype of value; sums are taken in float32 at least.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or layout does not fit; the message names both sides.
    """
    checks.check_msda(value, shapes, locations, weights)
    weights = weights.to(locations.dtype)
    if value.dtype == torch.float64:  # only for checking gradients: no kernel takes it
        return EMBEDDING_BAG.forward(value, shapes, locations, weights)
    return _msda(value, _flat(shapes), locations, weights)


def msda_fused(
    value: Tensor,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    shapes: Sequence[tuple[int, int]],
) -> Tensor:
    """Deformable attention from raw offsets and logits: softmax, locations and sums in one kernel.

    Args:
        value: (B, S, H, D) float32, float16, bfloat16 or float64, the levels in order.
        reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes cxcywh, fractions, float32.
        offsets: (B, Q, H, L, P, 2) in pixels of the level (points) or in halves of the box
            divided by P (boxes); the dtype of value or float32.
        logits: (B, Q, H, L * P), the dtype of offsets.
        shapes: Height and width of each of the 1 to 8 levels, as Python integers.

    Returns:
        (B, Q, H * D) in the dtype of value; sums are taken in float32 at least.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or layout does not fit; the message names both sides.
    """
    checks.check_msda_fused(value, reference, offsets, logits, shapes)
    if value.dtype == torch.float64:
        return EMBEDDING_BAG.forward(value, shapes, offsets, logits, reference)
    return _msda(value, _flat(shapes), offsets, logits, reference)


def nms_grouped(
    boxes: Tensor, scores: Tensor, groups: Tensor, count: int, threshold: float
) -> Tensor:
    """Greedy non-maximum suppression, each group by itself.

    On a GPU the host does not wait for the result, so a CUDA graph can contain the call.

    Args:
        boxes: (N, 4) xyxy float32, or float64, which only the reference form takes (it
            waits for the GPU).
        scores: (N,) float32; only their order matters, and of equal scores the earlier wins.
        groups: (N,) int64, for example the level, class or image; boxes of different groups never
            suppress each other. A box whose group is not in [0, count) is padding: it is not kept
            and suppresses nothing.
        count: Number of groups, empty ones included.
        threshold: Intersection over union above which the box with the lower score is suppressed.

    Returns:
        (N,) bool in the order of `boxes`: which are kept.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or layout does not fit.
    """
    checks.check_boxes(boxes, scores, groups)
    # Two stable sorts: by group, and by falling score in each. Padding comes before or after all.
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    every = torch.arange(count + 1, device=groups.device)
    starts = torch.searchsorted(groups[order], every)  # (count + 1,)
    keep = _nms_grouped(boxes[order], starts, threshold)
    return torch.zeros_like(keep).scatter(0, order, keep)  # back to the order of the caller


def mask_pack(
    logits: Tensor,
    size: tuple[int, int],
    filled: tuple[float, float] | None = None,
    threshold: float = 0.0,
) -> Tensor:
    """Mask logits to bits at full size: bilinear upsampling, threshold and packing in one kernel.

    Pixel i of n reads the map at (i + 0.5) * filled / n - 0.5, clamped to the map. Every product
    and sum is rounded to float32, rows before columns, so a logit exactly at the threshold gives
    the same bit on every device.

    Args:
        logits: (N, h, w) float32, float16 or bfloat16.
        size: Height H and width W of the masks in pixels.
        filled: Rows and columns of the map that the masks cover, from its top left corner, in
            (0, h] and (0, w]; may be fractional; None = all.
        threshold: A pixel is set where its logit is above this (0 is probability 1/2).

    Returns:
        (N, H, ceil(W / 32)) int32; bit k of word j is pixel 32 j + k of the row, bits beyond W
        are 0.

    Raises:
        TypeError: the dtype does not fit.
        ValueError: a shape, the filled part or the layout does not fit.
    """
    rows, cols = filled or (float(logits.shape[-2]), float(logits.shape[-1]))
    checks.check_masks(logits, size, (rows, cols))
    return _mask_pack(logits, list(size), [rows, cols], threshold)


def _flat(shapes: Sequence[tuple[int, int]]) -> list[int]:
    """Heights and widths as a flat list: the schema of an operator has no pairs."""
    return [side for shape in shapes for side in shape]


def _pairs(sides: Sequence[int]) -> list[tuple[int, int]]:
    """The inverse of `_flat`."""
    return list(zip(sides[::2], sides[1::2], strict=True))


def _operator(name: str) -> Callable[[F], F]:
    """Register a function as an operator; gives what calls it.

    Not `torch.library.custom_op`: at its first call it loads torch's compiler, which takes longer
    than to load nano, and as much memory as its weights.
    """

    def register(compute: F) -> F:
        schema = torch.library.infer_schema(compute, mutates_args=())
        _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, compute, "CompositeExplicitAutograd")
        return cast("F", getattr(torch.ops.ape_stream, name).default)

    return register


def _fake(name: str) -> Callable[[F], F]:
    """Register what gives the shapes and dtypes of an operator alone."""

    def register(fake: F) -> F:
        torch.library.register_fake(f"ape_stream::{name}", fake, lib=_LIBRARY)
        return fake

    return register


# One operator for both forms of input: without a reference, locations and weights are final.
@_operator("msda")
def _msda(
    value: Tensor,
    shapes: Sequence[int],
    offsets_or_locations: Tensor,
    logits_or_weights: Tensor,
    reference: Tensor | None = None,
) -> Tensor:
    kernels = registry.choose(value.device)
    return kernels.forward(
        value, _pairs(shapes), offsets_or_locations, logits_or_weights, reference
    )


# The fake forms give shapes and dtypes alone: torch.compile and torch.export trace with them.
@_fake("msda")
def _(
    value: Tensor,
    shapes: Sequence[int],  # noqa: ARG001
    offsets_or_locations: Tensor,
    logits_or_weights: Tensor,  # noqa: ARG001
    reference: Tensor | None = None,  # noqa: ARG001
) -> Tensor:
    B, _, H, D = value.shape
    return value.new_empty(B, offsets_or_locations.shape[1], H * D)


@_operator("msda_backward")
def _msda_backward(  # noqa: PLR0913, RUF100 - what forward takes, and the gradient
    grad: Tensor,
    value: Tensor,
    shapes: Sequence[int],
    offsets_or_locations: Tensor,
    logits_or_weights: Tensor,
    reference: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    kernels = registry.choose(value.device)
    return kernels.backward(
        grad.contiguous(),
        value,
        _pairs(shapes),
        offsets_or_locations,
        logits_or_weights,
        reference,
    )


@_fake("msda_backward")
def _(
    grad: Tensor,  # noqa: ARG001
    value: Tensor,
    shapes: Sequence[int],  # noqa: ARG001
    offsets_or_locations: Tensor,
    logits_or_weights: Tensor,
    reference: Tensor | None = None,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor]:
    exact = torch.float32  # many samples add to one gradient: 16 bits would lose them
    return (
        torch.empty_like(value, dtype=exact),
        torch.empty_like(offsets_or_locations, dtype=exact),
        torch.empty_like(logits_or_weights, dtype=exact),
    )


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    value, shapes, offsets_or_locations, logits_or_weights, reference = inputs
    ctx.save_for_backward(value, offsets_or_locations, logits_or_weights, reference)
    ctx.shapes = shapes


def _msda_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor, Tensor | None]:
    value, offsets_or_locations, logits_or_weights, reference = ctx.saved_tensors
    by_value, by_coordinate, by_attention = _msda_backward(
        grad, value, ctx.shapes, offsets_or_locations, logits_or_weights, reference
    )
    # With a reference the second gradient is that of pixel coordinates, see `Kernels.backward`.
    by_reference = None
    if reference is not None:
        by_coordinate, by_reference = _through_locations(
            by_coordinate,
            reference,
            offsets_or_locations,
            _pairs(ctx.shapes),
            ctx.needs_input_grad[4],
        )
    return (
        by_value.to(value.dtype),
        None,  # of shapes
        by_coordinate.to(offsets_or_locations.dtype),
        by_attention.to(logits_or_weights.dtype),
        by_reference,
    )


def _through_locations(
    by_pixel: Tensor,
    reference: Tensor,
    offsets: Tensor,
    shapes: Sequence[tuple[int, int]],
    wants_reference: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor | None]:
    """Gradients of offsets and reference from those of the pixel coordinates, by the chain rule.

    Points: `pixel = centre * size + offset - 1/2`, so the gradient of the offset is that of the
    pixel. Boxes: `pixel = (centre + offset / P * side / 2) * size - 1/2`.
    """
    by_location = by_pixel * level_sizes(shapes, by_pixel)[:, None, :]  # (B, Q, H, L, P, 2)
    by_centre = by_location.sum((2, 4)) if wants_reference else None  # (B, Q, L, 2)
    if reference.shape[-1] == 2:
        return by_pixel, by_centre
    scale = 0.5 / offsets.shape[-2]  # half a side, over P
    by_offset = by_location * (reference[:, :, None, :, None, 2:] * scale)
    if by_centre is None:
        return by_offset, None
    # A reference is shared by all heads and points of its query: their gradients are summed.
    by_side = (by_location * offsets.to(by_location.dtype)).sum((2, 4)) * scale
    return by_offset, torch.cat((by_centre, by_side), -1)


torch.library.register_autograd(
    "ape_stream::msda", _msda_gradients, setup_context=_save_inputs, lib=_LIBRARY
)


def _post_kernels(tensor: Tensor) -> Kernels:
    """What computes NMS and mask packing."""
    if tensor.dtype == torch.float64:  # no kernel takes it
        return EMBEDDING_BAG
    return registry.choose(tensor.device)


@_operator("nms_grouped")
def _nms_grouped(boxes: Tensor, starts: Tensor, threshold: float) -> Tensor:
    return _post_kernels(boxes).nms_grouped(boxes, starts, threshold)


@_fake("nms_grouped")
def _(boxes: Tensor, starts: Tensor, threshold: float) -> Tensor:  # noqa: ARG001
    return boxes.new_empty(len(boxes), dtype=torch.bool)


@_operator("mask_pack")
def _mask_pack(
    logits: Tensor, size: Sequence[int], filled: Sequence[float], threshold: float
) -> Tensor:
    (height, width), (rows, cols) = size, filled
    return _post_kernels(logits).mask_pack(logits, (height, width), (rows, cols), threshold)


@_fake("mask_pack")
def _(logits: Tensor, size: Sequence[int], filled: Sequence[float], threshold: float) -> Tensor:  # noqa: ARG001
    return logits.new_empty((logits.shape[0], size[0], -(-size[1] // 32)), dtype=torch.int32)
