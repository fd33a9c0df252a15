"""Raw outputs to kept regions: every (query, prompt) pair above its prompt's threshold.

Prompts never compete: thresholds, suppression and limits are per prompt, so that one more prompt
changes nothing of the others. (`official_top` is the released evaluation, where they do.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ape_model.geometry import corners
from ape_model.nms import box_iou

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.ape import Ape, ImageFeatures, PromptFeatures
    from ape_model.frame_graph import FrameGraph

__all__ = ["Picked", "Regions", "classwise_keep", "find_regions", "official_top", "pick"]

NMS_IOU = 0.7
PAIR_BUDGET = 32 * 1024 * 1024
"""Overlapping pairs times prompts looked at in one step."""
CANDIDATES = 1_000_000
"""(query, prompt) pairs that may enter suppression; beyond it, each prompt's strongest do."""


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """(query, prompt) pairs of one image, strongest first."""

    boxes: Tensor
    """(K, 4) x1, y1, x2, y2."""
    scores: Tensor
    """(K,) 0..1."""
    prompts: Tensor
    """(K,) int64 columns of the logits."""
    queries: Tensor
    """(K,) int64; one query may be picked for several prompts."""


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """What was found in one image, all passes through the head together."""

    boxes: Tensor
    """(K, 4) x1, y1, x2, y2 over the image's width and height, 0..1."""
    scores: Tensor
    """(K,) 0..1."""
    prompts: Tensor
    """(K,) int64 prompt ids."""
    mask_logits: Tensor
    """(K, H, W) over the whole canvas; positive is inside."""
    extent: tuple[float, float]
    """Share of the mask's rows and columns that the image covers; the rest is padding."""


def classwise_keep(scores: Tensor, boxes: Tensor, candidates: Tensor, threshold: float) -> Tensor:
    """Greedy NMS of every prompt by itself.

    Args:
        scores: (Q, P).
        boxes: (Q, 4) x1, y1, x2, y2, shared by all prompts.
        candidates: (Q, P) bool, which pairs take part.
        threshold: IoU above which the weaker falls; of equals, the later query.

    Returns:
        (Q, P) bool, which pairs stay.
    """
    overlap = (box_iou(boxes, boxes) > threshold).fill_diagonal_(fill_value=False)
    first, second = overlap.nonzero(as_tuple=True)
    step = max(1, PAIR_BUDGET // max(1, first.shape[0]))
    parts = [
        _columns_keep(some, take, first, second)
        for some, take in zip(scores.split(step, 1), candidates.split(step, 1), strict=True)
    ]
    return torch.cat(parts, dim=1)


def _columns_keep(scores: Tensor, candidates: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Fixed point of "stays unless a stronger one that stays overlaps", for each column."""
    strong, weak = scores[first], scores[second]
    stronger = (strong > weak) | ((strong == weak) & (first < second)[:, None])
    keep = candidates
    while True:
        hits = torch.zeros_like(scores).index_add_(
            0, second, (stronger & keep[first]).to(scores.dtype)
        )
        after = candidates & (hits == 0)
        if torch.equal(after, keep):
            return keep
        keep = after


def _ordered(scores: Tensor, boxes: Tensor, keep: Tensor) -> Picked:
    queries, prompts = keep.nonzero(as_tuple=True)
    kept = scores[queries, prompts]
    order = kept.argsort(descending=True, stable=True)
    queries, prompts = queries[order], prompts[order]
    return Picked(boxes[queries], kept[order], prompts, queries)


def official_top(
    logits: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    threshold: float,
    topk: int,
    nms: float = NMS_IOU,
) -> Picked:
    """The released evaluation: one threshold, NMS per prompt, the best of all prompts together.

    Args:
        logits: (Q, P); -inf takes a pair out.
        boxes: (Q, 4) cx, cy, w, h in 0..1 of the unpadded image.
        size: height and width in pixels of the unpadded resized image.
        threshold: scores must be greater.
        topk: how many are kept.
        nms: IoU above which the weaker falls.

    Returns:
        Picked pairs, boxes in pixels of `size`, clipped.
    """
    height, width = size
    limit = boxes.new_tensor([width, height, width, height])
    scores, pixels = logits.sigmoid(), corners(boxes) * limit
    finite = pixels.isfinite().all(1) & scores.isfinite().all(1)
    pixels = torch.minimum(pixels.nan_to_num().clamp(min=0), limit)
    keep = classwise_keep(scores, pixels, (scores > threshold) & finite[:, None], nms)
    best = _ordered(scores, pixels, keep)
    return Picked(best.boxes[:topk], best.scores[:topk], best.prompts[:topk], best.queries[:topk])


def pick(
    logits: Tensor,
    boxes: Tensor,
    thresholds: Tensor,
    *,
    per_prompt: int,
    nms: float = NMS_IOU,
) -> Picked:
    """Pairs above their prompt's threshold, at most `per_prompt` of each prompt.

    Args:
        logits: (Q, P).
        boxes: (Q, 4) cx, cy, w, h in 0..1.
        thresholds: (P,) lowest kept score of each prompt.
        per_prompt: most regions of one prompt, its strongest.
        nms: IoU above which the weaker region of the same prompt falls.

    Returns:
        Picked pairs, boxes in 0..1.
    """
    scores = logits.sigmoid()
    candidates = (scores >= thresholds) & scores.isfinite()
    named = candidates.any(0).nonzero().squeeze(1)  # most of a long vocabulary is absent
    scores, candidates = scores[:, named], candidates[:, named]
    candidates &= _ranks(scores) < max(per_prompt, CANDIDATES // max(1, named.shape[0]))
    inside = corners(boxes).clamp(0, 1)
    keep = classwise_keep(scores, inside, candidates, nms)
    keep &= _ranks(scores.masked_fill(~keep, -1.0)) < per_prompt
    best = _ordered(scores, inside, keep)
    return Picked(best.boxes, best.scores, named[best.prompts], best.queries)


def _ranks(scores: Tensor) -> Tensor:
    """(Q, P) place of every query among those of its prompt, 0 for the strongest."""
    return scores.argsort(dim=0, descending=True, stable=True).argsort(dim=0)


def find_regions(
    model: Ape | FrameGraph,
    features: ImageFeatures,
    passes: Sequence[tuple[PromptFeatures, Sequence[int]]],
    thresholds: Tensor,
    *,
    per_prompt: int = 100,
) -> list[Regions]:
    """Run the head once per pass on one batch of encoded images and put the results together.

    Args:
        model: the network, or its graphs.
        features: of `model.encode_image`: the backbone has run, once.
        passes: prompts, and the prompt id of each of their columns; vocabulary and sentences go
            in passes of their own.
        thresholds: (P,) by prompt id.
        per_prompt: most regions of one prompt.

    Returns:
        What was found, per image, strongest first.
    """
    found: list[list[Regions]] = [[] for _ in features.sizes]
    for prompts, ids in passes:
        outputs = model.head(features, prompts)
        columns = torch.as_tensor(ids, device=outputs.logits.device)
        limits = thresholds.to(outputs.logits)[columns]
        for image, size in enumerate(features.sizes):
            picked = pick(
                outputs.logits[image, :, : len(ids)],
                outputs.boxes[image],
                limits,
                per_prompt=per_prompt,
            )
            found[image].append(
                Regions(
                    boxes=picked.boxes,
                    scores=picked.scores,
                    prompts=columns[picked.prompts],
                    mask_logits=model.region_masks(outputs, image, picked.queries),
                    extent=(size[0] / features.canvas[0], size[1] / features.canvas[1]),
                )
            )
    return [_merged(parts) for parts in found]


def _merged(parts: list[Regions]) -> Regions:
    scores = torch.cat([part.scores for part in parts])
    order = scores.argsort(descending=True, stable=True)
    return Regions(
        boxes=torch.cat([part.boxes for part in parts])[order],
        scores=scores[order],
        prompts=torch.cat([part.prompts for part in parts])[order],
        mask_logits=torch.cat([part.mask_logits for part in parts])[order],
        extent=parts[0].extent,
    )
