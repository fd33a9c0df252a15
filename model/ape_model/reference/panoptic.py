"""Semantic and panoptic maps: every query paints its mask with what it was aligned to.

Things and stuff are equal here: a stuff name is one more prompt, its region one more query.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ape_model.reference.official_paste import to_output

__all__ = [
    "BACKGROUND",
    "Segment",
    "Vocabulary",
    "instance_logits",
    "panoptic_map",
    "semantic_logits",
    "semantic_map",
]

# Values of the official `panoptic_configs` (temperature .06, object mask .01, prob .1, overlap .4).
TEMPERATURE = 0.06
"""Divides scores before the softmax over classes: small: the best class takes nearly all."""
OBJECT_SCORE = 0.01
"""Queries below this score paint nothing."""
MASK_SCORE = 0.1
"""Pixels of a mask from this probability on count as its own."""
OVERLAP = 0.4
"""Share of its own pixels that a segment must win to stay."""
BACKGROUND = "things"
"""A first stuff class of this name stands for all things together."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Which columns of the logits are things and which are stuff."""

    things: tuple[int, ...]
    """Columns of countable classes, the first ones; none if it is not known."""
    columns: int
    """All columns."""
    overlapping: bool = False
    """The stuff names hold the things, too: one column may be both."""
    background: bool = False
    """The stuff classes begin with one that stands for all things together."""

    @property
    def separate(self) -> bool:
        """Things and stuff share no column: the things come first, the stuff after them."""
        return self.background and 0 < len(self.things) < self.columns


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a panoptic map."""

    id: int
    """Its value in the map, from 1."""
    isthing: bool
    """True for one countable object, False for all regions of a stuff class."""
    category_id: int
    """Class of things, or of stuff (counted from 1 after the background class)."""


def instance_logits(logits: Tensor, words: Vocabulary) -> Tensor:
    """(Q, P) logits with only things able to win."""
    if not words.things:
        return logits
    if not words.overlapping:
        return logits[:, : len(words.things)]
    others = torch.ones(words.columns, dtype=torch.bool, device=logits.device)
    others[list(words.things)] = False
    return logits.masked_fill(others, -math.inf)


def semantic_logits(logits: Tensor, words: Vocabulary) -> Tensor:
    """(Q, P) logits with all things as one column, their least, before the stuff."""
    if not words.separate:
        return logits
    # The least, as the official code has it, although the largest would be expected.
    things = logits[:, list(words.things)].min(dim=1, keepdim=True).values
    return torch.cat([things, logits[:, len(words.things) :]], dim=1)


def semantic_map(logits: Tensor, canvas_logits: Tensor, stuff_only_prior: float = 0.0) -> Tensor:
    """How much of every class lies on every pixel of the canvas, not normalised.

    Args:
        logits: (K, P) of the painting queries; one query may come twice.
        canvas_logits: (K, H, W) their mask logits on the canvas.
        stuff_only_prior: Where above 0, the first class is the background of a vocabulary of
            stuff alone and lies everywhere with this probability (written as its logit).

    Returns:
        (P, H, W).
    """
    weight = (logits.sigmoid() / TEMPERATURE).softmax(-1)  # (K, P)
    # Every query paints all classes, each in proportion to its weight.
    painted = torch.einsum("qc,qhw->chw", weight, canvas_logits.sigmoid())
    if stuff_only_prior > 0:
        painted[0] = math.log(stuff_only_prior / (1 - stuff_only_prior))
    return painted


def panoptic_map(
    logits: Tensor,
    canvas_logits: Tensor,
    size: tuple[int, int],
    output: tuple[int, int],
    words: Vocabulary,
) -> tuple[Tensor, list[Segment]]:
    """Give every pixel to at most one segment.

    Args:
        logits: (K, P) of the painting queries, all columns; one query may come twice.
        canvas_logits: (K, H, W) their mask logits on the canvas.
        size: Height and width in pixels of the unpadded resized image.
        output: Height and width in pixels of the wanted map.
        words: Which columns are things.

    Returns:
        (*output) int32, 0 for nothing, and the segments of its other values.
    """
    masks = to_output(canvas_logits, size, output).sigmoid()
    # Scores choose who paints; labels and strengths come from the sharpened softmax.
    wanted = logits.sigmoid().max(-1).values > OBJECT_SCORE
    scores, labels = (logits.sigmoid() / TEMPERATURE).softmax(-1).max(-1)
    scores, labels, masks = scores[wanted], labels[wanted], masks[wanted]
    drawn = torch.zeros(output, dtype=torch.int32, device=logits.device)
    segments: list[Segment] = []
    if not labels.numel():
        return drawn, segments
    owner = (scores[:, None, None] * masks).argmax(0)  # (*output) int64, row of the winner
    stuff_ids: dict[int, int] = {}
    for index, label in enumerate(labels.tolist()):
        won, solid = owner == index, masks[index] >= MASK_SCORE
        if not _holds(won, solid):
            continue
        # Regions of one stuff class share a segment; every thing is a segment of its own.
        isthing = label in words.things
        segment = len(segments) + 1
        if not isthing and label in stuff_ids:
            segment = stuff_ids[label]
        else:
            # Stuff is counted from 1: its class 0 stands for all things together.
            shift = len(words.things) - 1 if words.background and not isthing else 0
            segments.append(Segment(segment, isthing, label - shift))
            if not isthing:
                stuff_ids[label] = segment
        drawn[won & solid] = segment
    return drawn, segments


def _holds(won: Tensor, solid: Tensor) -> bool:
    """A segment counts when it won enough of the pixels that its mask is sure of."""
    area, own = int(won.sum()), int(solid.sum())
    return area > 0 and own > 0 and bool((won & solid).any()) and area / own >= OVERLAP
