"""How much of every prompt lies where, from all queries: semantic and panoptic maps.

Things and stuff are equal here (APE, section 3.3): a stuff name is one more prompt, its region one
more query. For a semantic map every query paints its mask with what it was aligned to; for a
panoptic map the sure ones compete for the pixels. All is computed at the resolution of the mask
feature; the frame's pixels read it bilinearly. (`ape_model.reference.panoptic` is the released
code, which upsamples mask logits to the canvas first, in two steps.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ape_cuda_ops.ops import nms_grouped
from ape_model.inference.detect import inside_boxes
from ape_model.inference.selection import NMS_IOU, scores_of
from ape_model.inference.transfer import to_device
from ape_model.network.boxes import corners

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.inference.cuda_graphs import CudaGraphRunner
    from ape_model.inference.detect import PromptPass
    from ape_model.network.ape import Ape, ImageFeatures, RawOutputs

__all__ = [
    "RULES",
    "AllQueries",
    "ClassMaps",
    "Rule",
    "Segments",
    "all_queries",
    "paint_classes",
    "paint_segments",
]

# Values of the official `panoptic_configs` (temperature .06, overlap .4).
TEMPERATURE = 0.06
"""Divides scores before the softmax over prompts: small: the best prompt takes nearly all."""
INSIDE = 0.5
"""Mask probability from which on a pixel is in the mask, as in masks of instances."""
OVERLAP = 0.4
"""Share of its own pixels that a region must win to be a segment."""
LOWEST_THRESHOLD = 1e-6
"""A threshold of 0 lets every query through; scores are divided by it."""

Rule = Literal["paper", "max", "sum"]
"""How queries paint: `paper` adds up masks, weighted by the softmax of each query's scores over the
prompts; `sum` weighted by the scores; `max` takes the strongest score times mask instead."""
RULES: tuple[Rule, ...] = ("paper", "max", "sum")


@dataclass(frozen=True, slots=True, eq=False)
class AllQueries:
    """The queries of one image, of all passes through the head, on the network's device."""

    scores: Tensor
    """(Q, P) 0..1, one column a prompt id; 0 where the query's pass does not know the prompt."""
    strength: Tensor
    """(Q,) the best score over the threshold of its prompt: from 1 on, the query is sure."""
    masks: Tensor
    """(Q, h, w) float32, probabilities over the whole canvas."""
    boxes: Tensor
    """(Q, 4) x1, y1, x2, y2 over the image's width and height."""
    filled: tuple[float, float]
    """Rows and columns of the masks that the image covers."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassMaps:
    """What competes for the pixels of one image, on the network's device."""

    values: Tensor
    """(K, h, w) float32; a pixel belongs to the largest."""
    gates: Tensor
    """(K or 1, h, w) float32: below 1, the pixel belongs to nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """The regions that compete for a panoptic map, on the network's device."""

    maps: ClassMaps
    """Of K regions, strongest first."""
    prompts: Tensor
    """(K,) int64 prompt id of each."""
    scores: Tensor
    """(K,) 0..1."""
    holds: Tensor
    """(K,) bool: it won enough of its own pixels; those of the others belong to nothing."""


def all_queries(
    model: Ape | CudaGraphRunner,
    features: ImageFeatures,
    passes: Sequence[PromptPass],
    heads: Sequence[RawOutputs],
    image: int,
    mask_margin: float | None = None,
) -> AllQueries:
    """Scores and masks of every query of one image of a batch.

    Args:
        model: The network, or its graphs.
        features: Of `model.encode_image`.
        passes: The prompts.
        heads: Of `model.head`, one for each pass.
        image: Which one of the batch.
        mask_margin: See `ApeConfig.mask_margin`; masks of things end at their boxes.
    """
    count = sum(len(one.ids) for one in passes)
    scores, strength, masks = [], [], []
    for one, outputs in zip(passes, heads, strict=True):
        device = outputs.logits.device
        own = scores_of(outputs.logits[image, :, : len(one.ids)]).float()  # (Q, L)
        # Prompts of other passes: these queries do not know them.
        among_all = own.new_zeros(len(own), count)
        among_all[:, to_device(one.ids, device)] = own
        scores.append(among_all)
        strength.append((own / one.thresholds.clamp(min=LOWEST_THRESHOLD)).amax(1))
        stuff = to_device(one.stuff, device)[own.argmax(1)]  # (Q,)
        masks.append(_masks(model, features, outputs, image, stuff, mask_margin))
    mask = torch.cat(masks)
    return AllQueries(
        scores=torch.cat(scores),
        strength=torch.cat(strength),
        masks=mask,
        boxes=torch.cat([corners(outputs.boxes[image].float()) for outputs in heads]),
        filled=_filled(features, image, mask),
    )


def _filled(features: ImageFeatures, image: int, mask: Tensor) -> tuple[float, float]:
    """Rows and columns of the mask feature that one image covers."""
    (rows, cols), canvas = features.sizes[image], features.canvas
    # In this order of operations, as `Regions.filled`: the last bit depends on it.
    return mask.shape[-2] * (rows / canvas[0]), mask.shape[-1] * (cols / canvas[1])


def _masks(
    model: Ape | CudaGraphRunner,
    features: ImageFeatures,
    outputs: RawOutputs,
    image: int,
    stuff: Tensor,
    margin: float | None,
) -> Tensor:
    """Mask probabilities of all queries, (Q, h, w) float32; those of things end at their boxes."""
    masks = model.region_masks(outputs, image).float().sigmoid()
    if margin is not None:
        boxes, filled = corners(outputs.boxes[image].float()), _filled(features, image, masks)
        down, across = inside_boxes(boxes, masks, filled, margin)  # (Q, h), (Q, w)
        # One axis after the other: (Q, h, w) truth values would cost more than the masks.
        masks *= (down | stuff[:, None])[:, :, None]
        masks *= (across | stuff[:, None])[:, None]
    return masks


def paint_classes(
    queries: AllQueries, rule: Rule = "paper", threshold: float | None = None
) -> ClassMaps:
    """What a semantic map is made from: one map a prompt, by prompt id.

    Args:
        queries: Of one image.
        rule: How they paint.
        threshold: A pixel belongs to nothing unless a query of this score or more has it in its
            mask; 0: every pixel has a prompt; None: the thresholds of the prompts.
    """
    scores, masks = queries.scores, queries.masks
    weights = (scores / TEMPERATURE).softmax(-1) if rule == "paper" else scores  # (Q, P)
    if rule == "max":
        # One prompt at a time: all at once would be Q * P maps.
        values = torch.stack([(column[:, None, None] * masks).amax(0) for column in weights.T])
    else:
        values = (weights.T @ masks.flatten(1)).unflatten(1, masks.shape[1:])
    if threshold == 0:
        return ClassMaps(values, torch.ones_like(masks[:1]))
    sure = queries.strength >= 1 if threshold is None else scores.amax(1) >= threshold  # (Q,)
    inside = (masks * sure[:, None, None]).amax(0, keepdim=True)  # (1, h, w)
    return ClassMaps(values, inside / INSIDE)


def paint_segments(queries: AllQueries, mask_score: float) -> Segments:
    """What a panoptic map is made from: the sure queries, each with its best prompt.

    Of those of one prompt whose boxes overlap much, only the strongest is left. A pixel belongs to
    the region with the largest softmax score times mask, if its mask is sure there.

    Args:
        queries: Of one image.
        mask_score: See `ApeConfig.panoptic_mask_score`.
    """
    best, prompts = queries.scores.max(1)  # (Q,)
    groups = torch.where(queries.strength >= 1, prompts, -1)
    rectangles = queries.boxes.clamp(0, 1)
    kept = nms_grouped(rectangles, best, groups, queries.scores.shape[1], NMS_IOU)
    rows = kept.nonzero().squeeze(1)
    rows = rows[best[rows].argsort(descending=True, stable=True)]  # (K,)
    masks = queries.masks[rows]
    sharpened = (queries.scores[rows] / TEMPERATURE).softmax(-1).amax(1)
    values = sharpened[:, None, None] * masks  # (K, h, w)
    return Segments(
        maps=ClassMaps(values, masks / mask_score),
        prompts=prompts[rows],
        scores=best[rows],
        holds=_holds(values, masks >= mask_score, queries.filled),
    )


def _holds(values: Tensor, solid: Tensor, filled: tuple[float, float]) -> Tensor:
    """(K,) bool: regions that won enough of the (K, h, w) cells that their masks are sure of."""
    if not len(values):
        return torch.zeros(0, dtype=torch.bool, device=values.device)
    rows, cols = (max(1, round(side)) for side in filled)  # cells of the padding do not count
    winner = values[:, :rows, :cols].argmax(0)  # (rows, cols)
    solid = solid[:, :rows, :cols]
    won = winner == torch.arange(len(values), device=values.device)[:, None, None]
    own = solid.sum((1, 2))
    return (won & solid).any(2).any(1) & (won.sum((1, 2)) >= OVERLAP * own)
