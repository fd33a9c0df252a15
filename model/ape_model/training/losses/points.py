"""Points at which a mask is judged, most of them where it is undecided (PointRend, 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["draw_points", "sample"]


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Read maps at points, bilinear; beyond the border a map is zero.

    Args:
        maps: (K, h, w).
        points: (K, P, 2) x, y as shares of width and height, 0..1.

    Returns:
        (K, P).
    """
    grid = 2 * points[:, None].to(maps) - 1  # (K, 1, P, 2), -1..1 as `grid_sample` counts
    read = functional.grid_sample(maps[:, None], grid, mode="bilinear", align_corners=False)
    return read[:, 0, 0]


@torch.no_grad()
def draw_points(logits: Tensor, count: int, oversample: float, importance: float) -> Tensor:
    """Draw points of every mask with torch's generator of the CPU.

    Args:
        logits: (K, h, w) of the masks.
        count: P, points of each mask.
        oversample: Candidates over points.
        importance: Part of the points, 0..1, that are the candidates nearest to the mask's edge
            (logits next to zero); the others lie anywhere.

    Returns:
        (K, P, 2) x, y in 0..1.
    """
    masks, device = len(logits), logits.device
    near = int(importance * count)
    candidates = torch.rand(masks, int(count * oversample), 2).to(device)
    undecided = -sample(logits.float(), candidates).abs()  # (K, candidates)
    rows = undecided.topk(near, dim=1).indices  # (K, near)
    chosen = candidates.gather(1, rows[..., None].expand(-1, -1, 2))
    return torch.cat([chosen, torch.rand(masks, count - near, 2).to(device)], dim=1)
