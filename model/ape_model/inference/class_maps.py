"""How much of every prompt lies where, from all queries: the base of semantic maps.

Things and stuff are equal here (APE, section 3.3): a stuff name is one more prompt, its region one
more query, and every query paints its mask with what it was aligned to. All is computed at the
resolution of the mask feature; the frame's pixels are read from it bilinearly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ape_model.inference.detect import OUTSIDE, inside_boxes
from ape_model.inference.selection import scores_of
from ape_model.inference.transfer import to_device
from ape_model.network.boxes import corners

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.inference.cuda_graphs import CudaGraphRunner
    from ape_model.inference.detect import PromptPass
    from ape_model.network.ape import Ape, ImageFeatures, RawOutputs

__all__ = ["RULES", "ClassMaps", "Rule", "class_maps", "query_weights"]

TEMPERATURE = 0.06
"""Divides scores before the softmax over prompts (official `semantic_on` code): small, so the best
prompt of a query takes nearly all of it."""
LOWEST_THRESHOLD = 1e-6
"""A threshold of 0 lets every query through; scores are divided by it."""

Rule = Literal["paper", "max", "sum"]
"""How queries paint: `paper` adds up masks, weighted by the softmax of each query's scores over the
prompts; `sum` weighted by the scores; `max` takes the strongest score times mask instead."""
RULES: tuple[Rule, ...] = ("paper", "max", "sum")


@dataclass(frozen=True, slots=True, eq=False)
class ClassMaps:
    """Strength of every prompt over one image, on the network's device."""

    values: Tensor
    """(P, h, w) float32, not normalised; a pixel belongs to the prompt with the largest."""
    gates: Tensor
    """(1, h, w) float32: from 1 on, some query is sure enough that something is there."""
    filled: tuple[float, float]
    """Rows and columns of the maps that the image covers."""


def query_weights(scores: Tensor, rule: Rule) -> Tensor:
    """(Q, P) scores, 0..1, to the share of each prompt in what a query paints, (Q, P)."""
    return (scores / TEMPERATURE).softmax(-1) if rule == "paper" else scores


def class_maps(
    model: Ape | CudaGraphRunner,
    features: ImageFeatures,
    passes: Sequence[PromptPass],
    heads: Sequence[RawOutputs],
    image: int,
    *,
    rule: Rule = "paper",
    threshold: float | None = None,
    mask_margin: float | None = None,
) -> ClassMaps:
    """Paint the maps of one image of a batch.

    Args:
        model: the network, or its graphs.
        features: of `model.encode_image`.
        passes: the prompts.
        heads: of `model.head`, one for each pass.
        image: which one of the batch.
        rule: how queries paint.
        threshold: lowest score times mask of any query where a pixel has a prompt; 0: everywhere;
            None: the threshold of the query's prompt.
        mask_margin: see `ApeConfig.mask_margin`.
    """
    count = sum(len(one.ids) for one in passes)
    scores, gated, masks = [], [], []
    for one, outputs in zip(passes, heads, strict=True):
        device = outputs.logits.device
        own = scores_of(outputs.logits[image, :, : len(one.ids)]).float()  # (Q, L)
        # Prompts of other passes: these queries do not know them.
        among_all = own.new_zeros(len(own), count)
        among_all[:, to_device(one.ids, device)] = own
        scores.append(among_all)
        lowest = one.thresholds if threshold is None else torch.full_like(one.thresholds, threshold)
        gated.append((own / lowest.clamp(min=LOWEST_THRESHOLD)).amax(1))
        masks.append(_masks(model, features, one, outputs, image, own, mask_margin))
    mask = torch.cat(masks)  # (Q, h, w), queries of all passes
    weights = query_weights(torch.cat(scores), rule)  # (Q, P)
    strength = torch.cat(gated)[:, None, None]  # (Q, 1, 1)
    return ClassMaps(
        values=_painted(weights, mask, rule),
        gates=(
            torch.ones_like(mask[:1]) if threshold == 0 else (strength * mask).amax(0, keepdim=True)
        ),
        filled=_filled(features, image, mask),
    )


def _filled(features: ImageFeatures, image: int, mask: Tensor) -> tuple[float, float]:
    """Rows and columns of the mask feature that one image covers."""
    height, width = mask.shape[-2:]
    rows, cols = features.sizes[image]
    return height * (rows / features.canvas[0]), width * (cols / features.canvas[1])


def _masks(
    model: Ape | CudaGraphRunner,
    features: ImageFeatures,
    one: PromptPass,
    outputs: RawOutputs,
    image: int,
    scores: Tensor,
    margin: float | None,
) -> Tensor:
    """Mask probabilities of all queries, (Q, h, w) float32; those of things end at their boxes."""
    queries = torch.arange(len(scores), device=scores.device)
    logits = model.region_masks(outputs, image, queries).float()
    if margin is not None:
        stuff = to_device(one.stuff, scores.device)[scores.argmax(1)]  # (Q,)
        kept = inside_boxes(
            corners(outputs.boxes[image].float()), logits, _filled(features, image, logits), margin
        )
        logits = logits.masked_fill(~(kept | stuff[:, None, None]), OUTSIDE)
    return logits.sigmoid()


def _painted(weights: Tensor, mask: Tensor, rule: Rule) -> Tensor:
    """(Q, P) weights and (Q, h, w) masks to (P, h, w)."""
    if rule == "max":
        # One prompt at a time: all at once would be Q * P maps.
        return torch.stack([(column[:, None, None] * mask).amax(0) for column in weights.T])
    return (weights.T @ mask.flatten(1)).unflatten(1, mask.shape[1:])
