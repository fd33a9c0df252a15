"""The classes of a step, for data whose images are not labelled exhaustively."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["FREQUENCY_POWER", "draw_classes"]

FREQUENCY_POWER = 0.5
"""Exponent of the frequency; 0.5 draws rare classes more often than they occur (CenterNet2)."""


def draw_classes(
    present: Tensor, frequencies: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Draw the classes of a step (the federated loss of Zhou et al. 2021, CenterNet2, section 4).

    A data set with thousands of classes labels only a few of them in each image, so that a missing
    label is no reliable negative. The step has all classes of its batch, and others up to `count`,
    drawn without replacement by the square root of their frequency.

    Args:
        present: (N,) int64 classes of the batch's regions, in any order.
        frequencies: (C,) number of images in which each class occurs; 0 is never drawn.
        count: Number of classes; more where the batch alone has more.
        generator: Source of chance.

    Returns:
        (K,) int64 classes, ascending.
    """
    shown = present.unique()
    weight = frequencies.float() ** FREQUENCY_POWER  # (C,)
    weight[shown] = 0  # these take part already
    # `multinomial` fails if it must draw more than there are positive weights.
    others = min(count - len(shown), int((weight > 0).sum()))
    if others <= 0:
        return shown
    drawn = torch.multinomial(weight, others, replacement=False, generator=generator)
    return torch.cat([shown, drawn]).sort().values
