"""The plain twins: what every kernel must compute, written with torch's own operators.

They are the specification (tests compare every backend with them), the baseline of the
benchmark, and what the official code runs where its CUDA extension was not built
(Deformable DETR, arXiv 2010.04159, section 4.1; ``multi_scale_deformable_attn_pytorch``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = [
    "level_sizes",
    "mask_pack",
    "msda",
    "msda_fused",
    "nms_grouped",
    "sampling_locations",
    "sampling_weights",
]

PAIRS = 2**20
"""Pairs of boxes compared at once: more take GBs."""
OUTSIDE = -10.0
"""A location far from any image: what a location that is not finite is taken for."""


def level_sizes(shapes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """Width and height of every level in pixels, as ``like``'s dtype and device; (L, 2)."""
    return torch.tensor(
        [(width, height) for height, width in shapes], dtype=like.dtype, device=like.device
    )


def sampling_locations(
    reference: Tensor, offsets: Tensor, shapes: Sequence[tuple[int, int]]
) -> Tensor:
    """Where each point is read, as fractions of its level's width and height.

    Args:
        reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes cxcywh, fractions of the image.
        offsets: (B, Q, H, L, P, 2), pixels of the level for points, box halves for boxes.
        shapes: height and width of each of the L levels.

    Returns:
        (B, Q, H, L, P, 2) in the dtype of ``reference``: coordinates are never rounded to
        16 bits, which alone would cost up to half a pixel.
    """
    steps = offsets.to(reference.dtype)
    centres = reference[:, :, None, :, None, :2]  # [B, Q, 1, L, 1, 2]
    if reference.shape[-1] == 2:
        return centres + steps / level_sizes(shapes, reference)[:, None, :]
    halves = reference[:, :, None, :, None, 2:] * 0.5
    return centres + steps / offsets.shape[-2] * halves


def sampling_weights(logits: Tensor, levels: int, like: Tensor) -> Tensor:
    """Softmax of (B, Q, H, L*P) logits over all points of all levels; (B, Q, H, L, P)."""
    weights = logits.to(like.dtype).softmax(-1)
    return weights.unflatten(-1, (levels, -1))


def msda(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Multi-scale deformable attention by one ``grid_sample`` per level.

    Args:
        value: (B, S, H, D), the levels one after another, S = sum of height * width.
        shapes: height and width of each of the L levels.
        locations: (B, Q, H, L, P, 2) xy in [0, 1]; outside reads zero, as does a NaN.
        weights: (B, Q, H, L, P), usually summing to one over L and P.

    Returns:
        (B, Q, H * D) in the dtype of ``value``; sums are taken in the dtype of ``locations``.
    """
    B, _, H, D = value.shape
    Q = locations.shape[1]
    finite = torch.where(locations.isfinite(), locations, OUTSIDE)
    grids = (2 * finite - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # [L, B*H, Q, P, 2]
    tokens = value.to(locations.dtype).split([h * w for h, w in shapes], dim=1)
    samples = []
    for (height, width), level, grid in zip(shapes, tokens, grids, strict=True):
        image = level.flatten(2).transpose(1, 2).reshape(B * H, D, height, width)
        samples.append(
            functional.grid_sample(image, grid, padding_mode="zeros", align_corners=False)
        )  # [B*H, D, Q, P]
    mixing = weights.to(locations.dtype).transpose(1, 2).reshape(B * H, 1, Q, -1)
    mixed = (torch.stack(samples, dim=-2).flatten(-2) * mixing).sum(-1)  # [B*H, D, Q]
    return mixed.view(B, H * D, Q).transpose(1, 2).contiguous().to(value.dtype)


def msda_fused(
    value: Tensor,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    shapes: Sequence[tuple[int, int]],
) -> Tensor:
    """Locations from references and offsets, softmax of the logits, then :func:`msda`.

    Args:
        value: (B, S, H, D).
        reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes cxcywh, fractions, float32.
        offsets: (B, Q, H, L, P, 2).
        logits: (B, Q, H, L * P).
        shapes: height and width of each of the L levels.

    Returns:
        (B, Q, H * D) in the dtype of ``value``.
    """
    locations = sampling_locations(reference, offsets, shapes)
    return msda(value, shapes, locations, sampling_weights(logits, len(shapes), reference))


def nms_grouped(boxes: Tensor, starts: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression of sorted boxes, every group on its own.

    Args:
        boxes: (N, 4) xyxy, group after group, of each the strongest first.
        starts: (G + 1,) int64, first box of every group and the end of the last; boxes before and
            behind them are padding.
        threshold: intersection over union above which the later box falls.

    Returns:
        (N,) bool: which stay.
    """
    place = torch.arange(len(boxes), device=boxes.device)
    keep = (place >= starts[0]) & (place < starts[-1])
    counts = starts.diff()
    several = (counts > 1).nonzero().squeeze(1)
    counts, order = counts[several].sort(descending=True)  # groups of like sizes go together
    first, sizes, done = starts[several[order]], counts.tolist(), 0
    while done < len(sizes):
        largest = sizes[done]
        step = slice(done, done + max(1, PAIRS // largest**2))
        members = first[step, None] + place[:largest]
        real = place[:largest] < counts[step, None]
        stays = _greedy(boxes[members.clamp_(max=len(boxes) - 1)], real, threshold)
        keep[members[real]] = stays[real]
        done = step.stop
    return keep


def _greedy(boxes: Tensor, real: Tensor, threshold: float) -> Tensor:
    """(G, N, 4) boxes of groups, (G, N) bool which there are, to (G, N) bool which stay.

    A box stays unless an earlier box that itself stays overlaps it by more than the threshold:
    read as an equation and iterated from "all stay", which settles at least one more box a turn,
    and usually all after a handful.
    """
    x1, y1, x2, y2 = (side[..., None] for side in boxes.mT.contiguous().unbind(1))  # [G, N, 1]
    width = (torch.minimum(x2, x2.mT) - torch.maximum(x1, x1.mT)).clamp_(min=0)
    height = (torch.minimum(y2, y2.mT) - torch.maximum(y1, y1.mT)).clamp_(min=0)
    overlap, area = width * height, (x2 - x1) * (y2 - y1)
    # [G, N, N]: the box of a line falls by the box of a column, which is an earlier one.
    falls = (overlap / (area + area.mT - overlap) > threshold).tril_(-1).to(boxes.dtype)
    keep, before = real, torch.zeros_like(real)
    while not torch.equal(keep, before):
        strikes = falls @ keep[..., None].to(falls.dtype)
        keep, before = real & (strikes[..., 0] == 0), keep
    return keep


def mask_pack(
    logits: Tensor, size: tuple[int, int], filled: tuple[float, float], threshold: float
) -> Tensor:
    """Upsample mask logits bilinearly, threshold them, 32 pixels to a word.

    Args:
        logits: (N, h, w).
        size: height and width of the masks.
        filled: rows and columns of the map that the masks cover.
        threshold: a pixel is set where its logit is above this.

    Returns:
        (N, H, ceil(W / 32)) int32; bit k of word j is pixel 32 j + k of the line.
    """
    packed = torch.zeros((len(logits), size[0], -(-size[1] // 32) * 4), dtype=torch.uint8)
    for mask, line in zip(logits, packed, strict=True):  # one at a time: 300 dense ones are GBs
        wide = _stretched(mask.float(), 1, size[1], filled[1])
        image = _stretched(wide, 0, size[0], filled[0])
        bits = np.packbits((image > threshold).cpu().numpy(), axis=-1, bitorder="little")
        line[:, : bits.shape[1]] = torch.from_numpy(bits)
    return packed.view(torch.int32).to(logits.device)


def _stretched(image: Tensor, axis: int, pixels: int, filled: float) -> Tensor:
    """An (h, w) image with one axis, of which `filled` cells are covered, of so many pixels."""
    cells = image.shape[axis]
    centres = torch.arange(pixels, dtype=image.dtype, device=image.device) + 0.5
    at = (centres * (filled / pixels) - 0.5).clamp(min=0)
    lower = at.long().clamp(max=cells - 1)
    share = at - lower
    share = share if axis else share[:, None]
    before = image.index_select(axis, lower)
    after = image.index_select(axis, (lower + 1).clamp(max=cells - 1))
    return (1 - share) * before + share * after
