"""Which classes a step asks for where pictures are not labelled with all of them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["FREQUENCY_POWER", "draw_classes"]

FREQUENCY_POWER = 0.5
"""Rare classes are asked for more often than they occur."""


def draw_classes(
    present: Tensor, frequencies: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Draw the classes of a step (the federated loss of Zhou et al. 2021, CenterNet2, section 4).

    A data set with thousands of classes says of each picture only a few of them, so the absence of
    a label is no sure negative. All classes that the batch shows are asked for, and as many others
    as make up `count`, drawn without repetition by the square root of their frequency.

    Args:
        present: (N,) int64 classes of the batch's regions, in any order.
        frequencies: (C,) in how many pictures each class occurs; one with 0 is never drawn.
        count: classes wanted; more where the batch alone shows more.
        generator: source of chance.

    Returns:
        (K,) int64 classes, ascending.
    """
    shown = present.unique()
    weight = frequencies.float() ** FREQUENCY_POWER
    weight[shown] = 0
    others = min(count - len(shown), int((weight > 0).sum()))
    if others <= 0:
        return shown
    drawn = torch.multinomial(weight, others, replacement=False, generator=generator)
    return torch.cat([shown, drawn]).sort().values
