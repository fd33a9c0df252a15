"""The reference forms: what every kernel must compute, by torch's own operators.

Tests compare every backend with them and benchmarks use them as the baseline. `msda` is what the
official code runs where its CUDA extension was not built (Deformable DETR, arXiv 2010.04159,
section 4.1; `multi_scale_deformable_attn_pytorch`).
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "level_sizes",
    "mask_pack",
    "msda",
    "msda_fused",
    "nms_grouped",
    "resize_axis",
    "resize_taps",
    "sampling_locations",
    "sampling_weights",
]

MAX_PAIRS = 2**20
"""Pairs of boxes compared at once; more would need gigabytes."""
PRECISION = 22
"""Bits after the point of a weight of `resize_axis`, as in Pillow."""
OUTSIDE = -10.0
"""Replaces locations that are not finite: far outside of every image, so they read zero."""


def level_sizes(shapes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """(L, 2) width and height of every level in pixels, dtype and device of `like`."""
    return torch.tensor(
        [(width, height) for height, width in shapes], dtype=like.dtype, device=like.device
    )


def sampling_locations(
    reference: Tensor, offsets: Tensor, shapes: Sequence[tuple[int, int]]
) -> Tensor:
    """Sampling locations, as fractions of the width and height of the level.

    Args:
        reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes cxcywh, fractions of the image.
        offsets: (B, Q, H, L, P, 2), in pixels of the level for points; for boxes in halves of
            the box, divided by P.
        shapes: Height and width of each of the L levels.

    Returns:
        (B, Q, H, L, P, 2) in the dtype of `reference`. Coordinates never have 16 bits: that
        rounding alone would move them by up to half a pixel.
    """
    offsets = offsets.to(reference.dtype)
    centres = reference[:, :, None, :, None, :2]  # (B, Q, 1, L, 1, 2)
    if reference.shape[-1] == 2:
        return centres + offsets / level_sizes(shapes, reference)[:, None, :]
    half_boxes = reference[:, :, None, :, None, 2:] * 0.5  # (B, Q, 1, L, 1, 2)
    return centres + offsets / offsets.shape[-2] * half_boxes


def sampling_weights(logits: Tensor, levels: int, like: Tensor) -> Tensor:
    """Softmax of (B, Q, H, L*P) logits over all points of all levels; (B, Q, H, L, P)."""
    return logits.to(like.dtype).softmax(-1).unflatten(-1, (levels, -1))


def msda(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Multi-scale deformable attention by one `grid_sample` per level.

    Args:
        value: (B, S, H, D), the levels one after another, S = sum of height * width.
        shapes: Height and width of each of the L levels.
        locations: (B, Q, H, L, P, 2) xy in [0, 1]; outside of it and NaN read zero.
        weights: (B, Q, H, L, P); the sum over L and P is usually 1.

    Returns:
        (B, Q, H * D) in the dtype of `value`; sums are taken in the dtype of `locations`.
    """
    B, _, H, D = value.shape
    Q = locations.shape[1]
    finite = torch.where(locations.isfinite(), locations, OUTSIDE)
    # grid_sample counts from -1 to 1 between the outer borders; heads go into its batch.
    grids = (2 * finite - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # (L, B*H, Q, P, 2)
    tokens = value.to(locations.dtype).split([h * w for h, w in shapes], dim=1)
    samples = []
    for (height, width), level, grid in zip(shapes, tokens, grids, strict=True):
        image = level.flatten(2).transpose(1, 2).reshape(B * H, D, height, width)
        samples.append(
            functional.grid_sample(image, grid, padding_mode="zeros", align_corners=False)
        )  # (B*H, D, Q, P)
    flat = weights.to(locations.dtype).transpose(1, 2).reshape(B * H, 1, Q, -1)  # (B*H, 1, Q, L*P)
    sums = (torch.stack(samples, dim=-2).flatten(-2) * flat).sum(-1)  # (B*H, D, Q)
    return sums.view(B, H * D, Q).transpose(1, 2).contiguous().to(value.dtype)


def msda_fused(
    value: Tensor,
    reference: Tensor,
    offsets: Tensor,
    logits: Tensor,
    shapes: Sequence[tuple[int, int]],
) -> Tensor:
    """Sampling locations, softmax of the logits, then `msda`.

    Args:
        value: (B, S, H, D).
        reference: (B, Q, L, 2) points or (B, Q, L, 4) boxes cxcywh, fractions, float32.
        offsets: (B, Q, H, L, P, 2).
        logits: (B, Q, H, L * P).
        shapes: Height and width of each of the L levels.

    Returns:
        (B, Q, H * D) in the dtype of `value`.
    """
    locations = sampling_locations(reference, offsets, shapes)
    return msda(value, shapes, locations, sampling_weights(logits, len(shapes), reference))


def nms_grouped(boxes: Tensor, starts: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression of sorted boxes, each group by itself.

    Groups of similar size are stacked and computed together, at most `MAX_PAIRS` pairs at once.

    Args:
        boxes: (N, 4) xyxy, group after group, in each by falling score.
        starts: (G + 1,) int64, first box of each group and the end of the last group; boxes
            before and after them are padding.
        threshold: Intersection over union above which the later box is suppressed.

    Returns:
        (N,) bool: which boxes are kept.
    """
    index = torch.arange(len(boxes), device=boxes.device)
    keep = (index >= starts[0]) & (index < starts[-1])  # all but padding
    counts = starts.diff()
    several = (counts > 1).nonzero().squeeze(1)  # a box alone in its group is kept
    # Largest first: the first of a step is its largest, so little of the stack is padding.
    counts, order = counts[several].sort(descending=True)
    first, sizes, done = starts[several[order]], counts.tolist(), 0
    while done < len(sizes):
        largest = sizes[done]
        step = slice(done, done + max(1, MAX_PAIRS // largest**2))
        members = first[step, None] + index[:largest]  # (groups of this step, largest)
        exists = index[:largest] < counts[step, None]
        kept = _greedy(boxes[members.clamp_(max=len(boxes) - 1)], exists, threshold)
        keep[members[exists]] = kept[exists]
        done = step.stop
    return keep


def _greedy(boxes: Tensor, exists: Tensor, threshold: float) -> Tensor:
    """Which boxes (G, N, 4) of G groups are kept, (G, N); `exists` (G, N) marks padding.

    Greedy NMS is a fixed point: a box is kept unless an earlier kept box overlaps it by more than
    the threshold. Iterating that rule from "all are kept" settles at least one more box of each
    group per round, so it ends, and a handful of rounds is usual.
    """
    x1, y1, x2, y2 = (side[..., None] for side in boxes.mT.contiguous().unbind(1))  # (G, N, 1)
    width = (torch.minimum(x2, x2.mT) - torch.maximum(x1, x1.mT)).clamp_(min=0)
    height = (torch.minimum(y2, y2.mT) - torch.maximum(y1, y1.mT)).clamp_(min=0)
    overlap, area = width * height, (x2 - x1) * (y2 - y1)
    iou = overlap / (area + area.mT - overlap)
    # Boxes are sorted, so only those of lower index can suppress: below the diagonal.
    suppresses = (iou > threshold).tril_(-1).to(boxes.dtype)  # (G, N, N): row by earlier column
    keep, before = exists, torch.zeros_like(exists)
    while not torch.equal(keep, before):
        # How many kept boxes suppress each: a matrix product, fast on every device.
        suppressors = suppresses @ keep[..., None].to(suppresses.dtype)  # (G, N, 1) counts
        keep, before = exists & (suppressors[..., 0] == 0), keep
    return keep


def mask_pack(
    logits: Tensor, size: tuple[int, int], filled: tuple[float, float], threshold: float
) -> Tensor:
    """Upsample mask logits bilinearly, compare with the threshold, pack 32 pixels into a word.

    Args:
        logits: (N, h, w).
        size: Height and width of the masks.
        filled: Rows and columns of the map that the masks cover.
        threshold: A pixel is set where its logit is above this.

    Returns:
        (N, H, ceil(W / 32)) int32; bit k of word j is pixel 32 j + k of the row.
    """
    packed = torch.zeros((len(logits), size[0], -(-size[1] // 32) * 4), dtype=torch.uint8)
    for mask, line in zip(logits, packed, strict=True):  # 300 full-size float maps are gigabytes
        wide = _upsample(mask.float(), 1, size[1], filled[1])  # (h, W)
        image = _upsample(wide, 0, size[0], filled[0])  # (H, W)
        bits = np.packbits((image > threshold).cpu().numpy(), axis=-1, bitorder="little")
        line[:, : bits.shape[1]] = torch.from_numpy(bits)
    return packed.view(torch.int32).to(logits.device)


def _upsample(image: Tensor, axis: int, pixels: int, filled: float) -> Tensor:
    """Resize one axis of an (h, w) image to `pixels`, which cover `filled` of its cells."""
    cells = image.shape[axis]
    centres = torch.arange(pixels, dtype=image.dtype, device=image.device) + 0.5
    at = (centres * (filled / pixels) - 0.5).clamp(min=0)  # in cells, the first one repeated
    low = at.long().clamp(max=cells - 1)
    weight = at - low
    weight = weight if axis else weight[:, None]  # along the columns, or along the rows
    before = image.index_select(axis, low)
    after = image.index_select(axis, (low + 1).clamp(max=cells - 1))
    return (1 - weight) * before + weight * after


def resize_axis(image: Tensor, axis: int, pixels: int) -> Tensor:
    """Pillow's antialiased bilinear resize of bytes along one axis, in integers.

    Args:
        image: (H, W, C) uint8.
        axis: 0 or 1.
        pixels: Of that axis in the result.

    Returns:
        (pixels, W, C) or (H, pixels, C) uint8.
    """
    cells = image.shape[axis]
    first, weights = _taps_on(image.device, cells, pixels)
    total: Tensor | int = 1 << (PRECISION - 1)  # one half: the shift below rounds to nearest
    for turn, weight in enumerate(weights.unbind(1)):
        # A tap beyond the border has no weight: any cell will do.
        taken = image.index_select(axis, (first + turn).clamp_(max=cells - 1))
        total = total + taken.int().mul_(weight.view(-1, 1, 1) if axis == 0 else weight[:, None])
    # Weights are not negative and sum up to one but for rounding: no sum leaves the bytes.
    return (torch.as_tensor(total) >> PRECISION).to(torch.uint8)


@lru_cache(maxsize=16)  # a copy to a GPU would make every frame wait
def _taps_on(device: torch.device, cells: int, pixels: int) -> tuple[Tensor, Tensor]:
    first, weights = resize_taps(cells, pixels)
    return torch.from_numpy(first).to(device), torch.from_numpy(weights).to(device)


@lru_cache(maxsize=16)  # a stream keeps its size
def resize_taps(cells: int, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Which cells of an axis each pixel reads, and how much.

    Returns:
        (pixels,) first cells, and (pixels, taps) weights in 2**-PRECISION; taps beyond the last
        cell have none.
    """
    scale = cells / pixels
    reach = max(scale, 1.0)  # the triangle widens when shrinking (antialiasing), never narrows
    centre = (np.arange(pixels) + 0.5) * scale
    # Ends are truncated after adding a half, in this order, as in Pillow's precompute_coeffs.
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + reach + 0.5).astype(np.int64), cells)
    taps = first + np.arange(2 * ceil(reach) + 1)[:, None]
    weights = np.maximum(1 - np.abs((taps - centre + 0.5) * (1.0 / reach)), 0) * (taps < end)
    total = np.zeros(pixels)
    for weight in weights:  # one after another: another order rounds otherwise
        total += weight
    whole = (weights / total * (1 << PRECISION) + 0.5).astype(np.int32)
    return first, np.ascontiguousarray(whole.T)
