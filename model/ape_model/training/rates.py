"""Learning rates of the parts of a network and of the steps of a run."""

from __future__ import annotations

import math
import re
from typing import Final

__all__ = ["is_slow", "layer_factor", "warm_up_and_cosine"]

_BLOCK: Final = re.compile(r"backbone\.(?:net\.)?blocks\.(\d+)\.")
_STEM: Final = re.compile(r"backbone\.(?:net\.(?:pos_embed|patch_embed)|stem)")
_SLOW: Final = ("sampling_offsets", "reference_points")
_SLOW_FACTOR: Final = 0.1
"""As in Deformable DETR and in the official configurations."""


def is_slow(name: str) -> bool:
    """Whether a weight decides where deformable attention samples, and so learns slowly."""
    return any(part in name for part in _SLOW)


def layer_factor(name: str, depth: int, decay: float) -> float:
    """Factor of a weight's learning rate; the first rule that fits counts.

    Args:
        name: Of the weight, as in the state_dict.
        depth: Blocks of the backbone, or what stands for it.
        decay: Rate of a layer over that of the next one (BEiT). Layer 0 is the patch embedding and
            the position table, layer i + 1 is block i, layer `depth` + 1 is everything else.
    """
    if is_slow(name):
        return _SLOW_FACTOR
    if _STEM.match(name):
        return decay ** (depth + 1)
    block = _BLOCK.match(name)
    return decay ** (depth - int(block[1])) if block else 1.0


def warm_up_and_cosine(
    step: int, steps: int, warm_up: int, decay_from: float, peak: float = 1.0
) -> float:
    """Learning rate of a step: it rises linearly, stays, and falls to zero as a cosine does.

    Args:
        step: 0 and more.
        steps: Of the whole run.
        warm_up: Steps in which the rate rises.
        decay_from: Part of the run, 0..1, after which it falls.
        peak: The rate between both.
    """
    rising = peak * (step + 1) / warm_up if step < warm_up else peak
    part = max(0.0, (step / steps - decay_from) / (1 - decay_from))  # of the decay
    return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))
