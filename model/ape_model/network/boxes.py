"""Boxes as tensors: pure functions, used by the network, by selection and by training."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["box_iou", "corners", "inverse_sigmoid"]

LOGIT_EPS = 1e-3
"""`inverse_sigmoid` keeps this far from 0 and 1 (the official value; DETR's own is 1e-5)."""


def corners(boxes: Tensor) -> Tensor:
    """Turn (..., 4) boxes of cx, cy, w, h into x1, y1, x2, y2."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Logit of x in 0..1, kept finite: both x and 1 - x count as at least 1e-3."""
    # Numerator and denominator are clamped each by itself, as in Deformable DETR.
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=LOGIT_EPS) / (1 - x).clamp(min=LOGIT_EPS))


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of (..., A, 4) with (..., B, 4) boxes x1, y1, x2, y2: (..., A, B)."""
    a, b = first[..., :, None, :], second[..., None, :, :]  # (..., A, 1, 4), (..., 1, B, 4)
    low = torch.maximum(a[..., :2], b[..., :2])  # (..., A, B, 2)
    high = torch.minimum(a[..., 2:], b[..., 2:])  # (..., A, B, 2)
    overlap = (high - low).clamp(min=0).prod(-1)  # (..., A, B)
    area_a = (a[..., 2:] - a[..., :2]).prod(-1)  # (..., A, 1)
    area_b = (b[..., 2:] - b[..., :2]).prod(-1)  # (..., 1, B)
    return overlap / (area_a + area_b - overlap)
