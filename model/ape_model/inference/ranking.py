"""The strongest regions of an image over all prompts, as benchmarks score them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ape_model.inference.detect import Regions, merged
from ape_model.inference.selection import scores_of, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.inference.cuda_graphs import CudaGraphRunner
    from ape_model.inference.detect import PromptPass
    from ape_model.inference.selection import Selected
    from ape_model.network.ape import Ape, ImageFeatures, RawOutputs

__all__ = ["rank_regions"]

_CANDIDATES = 4
"""Pairs that enter suppression first, for each region that is wanted; more where it takes many."""


def rank_regions(
    model: Ape | CudaGraphRunner,
    features: ImageFeatures,
    passes: Sequence[PromptPass],
    heads: Sequence[RawOutputs],
    top_k: int,
) -> Regions:
    """The best regions of one image, after the suppression of each prompt by itself.

    A weaker pair never suppresses a stronger one, so the best pairs are tried first, and more only
    where too few of them are left: the result is that of all pairs.

    Args:
        model: The network, or its graphs.
        features: Of one image.
        passes: At least one; their thresholds do not count.
        heads: Of `model.head`, one for each pass.
        top_k: How many regions, at most.

    Returns:
        The regions, strongest first.
    """
    selections = _best_pairs(passes, heads, top_k)
    size, canvas = features.sizes[0], features.canvas
    best = torch.cat([one.scores for one in selections]).sort(descending=True).values[:top_k]
    least = float(best[-1]) if len(best) else 0.0
    found = []
    for one, outputs, chosen in zip(passes, heads, selections, strict=True):
        # Those of this pass that may be among the best of all.
        kept = chosen.scores >= least
        found.append(
            Regions(
                boxes=chosen.boxes[kept],
                scores=chosen.scores[kept],
                prompts=one.ids[chosen.prompts[kept]],
                mask_logits=model.region_masks(outputs, 0, chosen.queries[kept]),
                extent=(size[0] / canvas[0], size[1] / canvas[1]),
            )
        )
    whole = merged(found)
    return Regions(
        whole.boxes[:top_k],
        whole.scores[:top_k],
        whole.prompts[:top_k],
        whole.mask_logits[:top_k],
        whole.extent,
    )


def _best_pairs(
    passes: Sequence[PromptPass], heads: Sequence[RawOutputs], top_k: int
) -> list[Selected]:
    """At least the `top_k` best pairs of one image, of each pass."""
    pairs = zip(passes, heads, strict=True)
    logits = [outputs.logits[:1, :, : len(one.ids)] for one, outputs in pairs]
    scores = torch.cat([scores_of(part).flatten() for part in logits]).sort(descending=True).values
    count = _CANDIDATES * top_k
    while True:
        floor = float(scores[count - 1]) if count < len(scores) else 0.0
        batches = [
            (part, outputs.boxes[:1], torch.full_like(one.thresholds, floor))
            for part, one, outputs in zip(logits, passes, heads, strict=True)
        ]
        selections = [images[0] for images in select(batches, per_prompt=top_k)]
        if floor == 0.0 or sum(len(one.scores) for one in selections) >= top_k:
            return selections
        count *= 2
