"""Checks of the operators' arguments, before any launch and without waiting for the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["check_boxes", "check_masks", "check_msda", "check_msda_fused"]

VALUE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MAX_LEVELS = 8
"""Length of the arrays in the kernels' arguments."""


def _same_device(**tensors: Tensor) -> None:
    """All tensors are on the device of the first one, and contiguous."""
    (first, expected), *others = ((name, tensor.device) for name, tensor in tensors.items())
    for name, device in others:
        if device != expected:
            raise ValueError(f"{name} is on {device} but {first} is on {expected}")
    # Kernels get bare addresses, not strides.
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(
                f"{name} must be contiguous, got strides {tuple(tensor.stride())} for shape "
                f"{tuple(tensor.shape)}: call .contiguous() first"
            )


def _rank(name: str, tensor: Tensor, axes: str) -> None:
    """`tensor` has as many axes as `axes` lists."""
    rank = axes.count(",") + 1
    if tensor.dim() != rank:
        raise ValueError(f"{name} must be [{axes}] with {rank} axes, got shape {_shape(tensor)}")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _expect(name: str, tensor: Tensor, expected: tuple[int, ...], why: str) -> None:
    """`tensor` has the expected shape."""
    if _shape(tensor) != expected:
        raise ValueError(f"{name} must be {expected} ({why}), got {_shape(tensor)}")


def _dtype(name: str, tensor: Tensor, allowed: tuple[torch.dtype, ...], why: str = "") -> None:
    """`tensor` has one of the allowed dtypes."""
    if tensor.dtype not in allowed:
        names = " or ".join(str(dtype) for dtype in dict.fromkeys(allowed))
        raise TypeError(f"{name} must be {names}{why}, got {tensor.dtype}")


def _check_value(value: Tensor, shapes: Sequence[tuple[int, int]]) -> torch.dtype:
    """Value and shapes fit each other; returns the dtype of coordinates (never 16 bits)."""
    _rank("value", value, "B, S, H, D")
    _dtype("value", value, VALUE_DTYPES)
    if not 1 <= len(shapes) <= MAX_LEVELS:
        raise ValueError(f"shapes must have 1 to {MAX_LEVELS} (height, width), got {len(shapes)}")
    for level, (height, width) in enumerate(shapes):
        if height < 1 or width < 1:
            raise ValueError(f"level {level} must be at least 1 x 1, got {height} x {width}")
    tokens = sum(height * width for height, width in shapes)
    if tokens != value.shape[1]:
        raise ValueError(
            f"shapes {list(shapes)} have {tokens} tokens but value has {value.shape[1]}"
        )
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def check_msda(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> None:
    """Arguments of `msda`.

    Raises:
        TypeError: a dtype is not one the operator computes in.
        ValueError: rank, shape, device or layout do not fit.
    """
    exact = _check_value(value, shapes)
    # Ranks first: the lines below index the shapes.
    _rank("locations", locations, "B, Q, H, L, P, 2")
    _rank("weights", weights, "B, Q, H, L, P")
    B, _, H, _ = value.shape
    Q, P = locations.shape[1], locations.shape[4]
    expected = (B, Q, H, len(shapes), P)
    _expect("locations", locations, (*expected, 2), "B and H of value, L of shapes")
    _expect("weights", weights, expected, "as locations without xy")
    _dtype("locations", locations, (exact,), f" for {value.dtype} values")
    _dtype("weights", weights, (value.dtype, exact), f" for {value.dtype} values")
    _same_device(value=value, locations=locations, weights=weights)


def check_msda_fused(
    value: Tensor,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    shapes: Sequence[tuple[int, int]],
) -> None:
    """Arguments of `msda_fused`.

    Raises:
        TypeError: a dtype is not one the operator computes in.
        ValueError: rank, shape, device or layout do not fit.
    """
    exact = _check_value(value, shapes)
    _rank("reference", reference, "B, Q, L, 2 or 4")
    _rank("offsets", offsets, "B, Q, H, L, P, 2")
    _rank("logits", logits, "B, Q, H, L*P")
    B, _, H, _ = value.shape
    L, Q, P = len(shapes), offsets.shape[1], offsets.shape[4]
    if reference.shape[-1] not in {2, 4}:
        raise ValueError(f"reference must end in 2 (xy) or 4 (cxcywh), got {_shape(reference)}")
    _expect("reference", reference, (B, Q, L, reference.shape[-1]), "B, Q, L of the others")
    _expect("offsets", offsets, (B, Q, H, L, P, 2), "B and H of value, L of shapes")
    _expect("logits", logits, (B, Q, H, L * P), "L * P of offsets")
    _dtype("reference", reference, (exact,), f" for {value.dtype} values")
    _dtype("offsets", offsets, (value.dtype, exact), f" for {value.dtype} values")
    _dtype("logits", logits, (offsets.dtype,), " as offsets")
    _same_device(value=value, reference=reference, offsets=offsets, logits=logits)


def check_boxes(boxes: Tensor, scores: Tensor, groups: Tensor) -> None:
    """Arguments of `nms_grouped`.

    Raises:
        TypeError: a dtype is not one the operator computes in.
        ValueError: rank, shape, device or layout do not fit.
    """
    _rank("boxes", boxes, "N, 4")
    N = len(boxes)
    _expect("boxes", boxes, (N, 4), "xyxy")
    _expect("scores", scores, (N,), "N of boxes")
    _expect("groups", groups, (N,), "N of boxes")
    _dtype("boxes", boxes, (torch.float32, torch.float64))
    _dtype("scores", scores, (torch.float32,))
    _dtype("groups", groups, (torch.int64,))
    _same_device(boxes=boxes, scores=scores, groups=groups)


def check_masks(logits: Tensor, size: tuple[int, int], filled: tuple[float, float]) -> None:
    """Arguments of `mask_pack`.

    Raises:
        TypeError: a dtype is not one the operator computes in.
        ValueError: rank, size, filled part or layout do not fit.
    """
    _rank("logits", logits, "N, H, W")
    _dtype("logits", logits, VALUE_DTYPES[:3])
    if min(size) < 1 or min(logits.shape[1:]) < 1:
        raise ValueError(
            f"size and logits must be at least 1 x 1, got size {size} and {_shape(logits)}"
        )
    # Written so that NaN is refused, too.
    if not all(0 < part <= side for part, side in zip(filled, logits.shape[1:], strict=True)):
        raise ValueError(f"filled {filled} is not inside the maps of {_shape(logits)}")
    _same_device(logits=logits)
