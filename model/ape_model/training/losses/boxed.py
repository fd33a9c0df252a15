"""Masks learnt from boxes alone (BoxInst, Tian et al. 2021, arXiv 2012.02310, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ape_model.training.losses.functional import dice_loss

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["affinity_loss", "projection_loss", "similar_neighbours"]

NEIGHBOURS = ((0, 2), (2, 0), (2, 2), (2, -2))
"""Rows and columns to half of the eight neighbours at distance 2; pairs count once."""
SAME_COLOUR = 0.15
"""Largest distance of two mean colours that count as one, in deviations of normalised RGB: about
9 of 255 levels."""


def projection_loss(logits: Tensor, boxes: Tensor) -> Tensor:
    """Compare a mask's shadow on both axes with the box (eq. 1 and 2).

    Args:
        logits: (K, h, w) of masks before the sigmoid.
        boxes: (K, 4) x1, y1, x2, y2, cells.

    Returns:
        (K,) sum of the dice losses of columns and rows.
    """
    # The shadow is the largest value of each column or row: the mask touches all sides of its box
    # and leaves the cells outside; what it is inside, `affinity_loss` decides.
    columns = _covered(boxes[:, 0], boxes[:, 2], logits.shape[2])  # (K, w)
    rows = _covered(boxes[:, 1], boxes[:, 3], logits.shape[1])  # (K, h)
    return dice_loss(logits.amax(1), columns, (1,)) + dice_loss(logits.amax(2), rows, (1,))


def _covered(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """(K, cells) part of each cell between two ends, (K,) each."""
    start = torch.arange(cells, device=low.device, dtype=low.dtype)  # (cells,)
    covered = torch.minimum(high[:, None], start + 1) - torch.maximum(low[:, None], start)
    return covered.clamp(0, 1)


def similar_neighbours(colours: Tensor) -> Tensor:
    """Find pairs of cells of one colour.

    Args:
        colours: (B, 3, h, w) mean normalised RGB of each cell.

    Returns:
        (B, 4, h, w) bool, whether a cell and its neighbour at `NEIGHBOURS` have one colour.
    """
    distance = [(colours - _moved(colours, by)).norm(dim=1) for by in NEIGHBOURS]  # (B, h, w) each
    # Beyond the border there is no cell.
    there = torch.ones_like(colours[:, 0])
    inside = [_moved(there, by) > 0 for by in NEIGHBOURS]
    return (torch.stack(distance, 1) < SAME_COLOUR) & torch.stack(inside, 1)


def affinity_loss(logits: Tensor, similar: Tensor, inside: Tensor) -> Tensor:
    """Neighbours of one colour are both in a mask or both not (eq. 5 to 7).

    Args:
        logits: (K, h, w) of masks before the sigmoid.
        similar: (K, 4, h, w) bool, as `similar_neighbours` gives it for the mask's image.
        inside: (K, h, w) bool, the cells of the mask's box: only pairs that begin there count.

    Returns:
        (K,) mean over those pairs; 0 where there is none.
    """
    # log(p q + (1 - p)(1 - q)) by logarithms, which do not round to log 0.
    yes, no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    agree = [
        torch.logaddexp(yes + _moved(yes, by), no + _moved(no, by)) for by in NEIGHBOURS
    ]  # (K, h, w) each
    counted = similar & inside[:, None]  # (K, 4, h, w)
    total = -(torch.stack(agree, 1) * counted).sum((1, 2, 3))
    return total / counted.sum((1, 2, 3)).clamp(min=1)


def _moved(maps: Tensor, by: tuple[int, int]) -> Tensor:
    """Maps (..., h, w) whose cells hold their neighbour's value, zero beyond the border."""
    rows, cols = by
    height, width = maps.shape[-2:]
    padded = functional.pad(maps, (max(0, -cols), max(0, cols), max(0, -rows), max(0, rows)))
    top, left = max(0, rows), max(0, cols)
    return padded[..., top : top + height, left : left + width]
