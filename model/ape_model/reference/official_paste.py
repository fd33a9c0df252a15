"""Mask logits to masks: at full resolution, or by the official detour over 128 x 128 pixels.

The official post-processing binarises masks on the padded canvas, averages them into 128 x 128
cells of their box (RoIAlign), binarises, and pastes the cells back into the output's box. It
rounds the outlines of large regions, so it is here for parity alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = ["full_masks", "parity_masks", "to_canvas", "to_output"]

CELLS = 128  # mask side in detectron2's `crop_and_resize`


def to_canvas(logits: Tensor, canvas: tuple[int, int]) -> Tensor:
    """(K, H, W) mask logits to (K, *canvas) by bilinear upsampling."""
    return F.interpolate(logits[None], size=canvas, mode="bilinear", align_corners=False)[0]


def to_output(maps: Tensor, size: tuple[int, int], output: tuple[int, int]) -> Tensor:
    """(K, *canvas) maps, cropped to the unpadded `size`, to (K, *output) by bilinear resize."""
    inside = maps[None, :, : size[0], : size[1]]
    return F.interpolate(inside, size=output, mode="bilinear", align_corners=False)[0]


def full_masks(
    logits: Tensor, size: tuple[int, int], canvas: tuple[int, int], output: tuple[int, int]
) -> Tensor:
    """Masks at full resolution.

    Args:
        logits: (K, H, W) over the canvas.
        size: Height and width in pixels of the unpadded image.
        canvas: Height and width in pixels of the padded image.
        output: Height and width in pixels of the wanted masks.

    Returns:
        (K, *output) bool.
    """
    return to_output(to_canvas(logits, canvas), size, output) > 0


def _bin_weights(low: float, high: float, length: int) -> Tensor:
    """(CELLS, length) float32: how much each pixel of an axis counts in each cell of a box."""
    # RoIAlign with adaptive sampling: as many samples per cell as pixels, at least one.
    span = torch.tensor(high) - torch.tensor(low)
    cell = span / CELLS
    samples = max(1, int(torch.ceil(cell)))
    start = torch.tensor(low) - 0.5  # "aligned": pixel centres are at halves
    offset = (torch.arange(samples) + 0.5) * cell / samples
    position = (start + torch.arange(CELLS)[:, None] * cell) + offset  # (CELLS, samples)
    outside = (position < -1) | (position > length)
    position = position.clamp(min=0)
    # Each sample lies between two pixels; at the last pixel it takes that one whole.
    below = position.floor().clamp(max=length - 1)
    above = (below + 1).clamp(max=length - 1)
    share = torch.where(below >= length - 1, torch.zeros_like(position), position - below)
    weights = torch.zeros(CELLS, length)
    weights.scatter_add_(1, below.long(), (1 - share).masked_fill(outside, 0.0))
    weights.scatter_add_(1, above.long(), share.masked_fill(outside, 0.0))
    return weights / samples


def _cells(mask: Tensor, box: Tensor) -> Tensor:
    """(H, W) bool mask averaged in the cells of its box: (CELLS, CELLS) float32 of 0 and 1.

    RoIAlign's bilinear samples separate, so it is one product with the weights of either axis.
    """
    x1, y1, x2, y2 = box.tolist()
    rows, cols = _bin_weights(y1, y2, mask.shape[0]), _bin_weights(x1, x2, mask.shape[1])
    return (rows @ mask.float() @ cols.T >= 0.5).float()


def _pasted(cells: Tensor, box: Tensor, output: tuple[int, int]) -> Tensor:
    """(CELLS, CELLS) cells painted into their (4,) box of a (*output) bool mask."""
    axes = []
    for low, high, length in ((box[1], box[3], output[0]), (box[0], box[2], output[1])):
        # Pixel centres of the output over the box, from -1 to 1 as `grid_sample` counts.
        axes.append((torch.arange(length) + 0.5 - low) / (high - low) * 2 - 1)
    y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([x, y], dim=-1)[None]
    painted = F.grid_sample(cells[None, None], grid.to(cells.dtype), align_corners=False)
    return painted[0, 0] >= 0.5


def parity_masks(
    canvas_masks: Tensor, boxes: Tensor, size: tuple[int, int], output: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Masks and boxes as the official detector returns them.

    Args:
        canvas_masks: (K, H, W) bool on the padded canvas.
        boxes: (K, 4) x1, y1, x2, y2 in pixels of the canvas.
        size: Height and width in pixels of the unpadded resized image.
        output: Height and width in pixels of the wanted masks.

    Returns:
        (M, *output) bool masks, (M, 4) boxes in pixels of the output, and (M,) int64 which of
        the K they are: boxes that are empty after clipping are dropped.
    """
    height, width = output
    scale = boxes.new_tensor([width / size[1], height / size[0]] * 2)
    scaled = boxes * scale
    scaled = torch.minimum(scaled.clamp(min=0), boxes.new_tensor([width, height] * 2))
    kept = ((scaled[:, 2:] - scaled[:, :2]) > 0).all(1).nonzero().squeeze(1)
    masks = torch.zeros(kept.shape[0], height, width, dtype=torch.bool)
    for target, index in zip(masks, kept.tolist(), strict=True):
        cells = _cells(canvas_masks[index], boxes[index].float())
        target.copy_(_pasted(cells, scaled[index].float(), output))
    return masks, scaled[kept], kept
