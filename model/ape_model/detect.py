"""Which regions are kept while streaming: every prompt for itself, weaker doubles removed.

The official rule ranks all (query, prompt) pairs of a frame against each other, so a greedy prompt
can push others out. Here a prompt keeps what scores at least its own threshold, whatever the other
prompts do. Nothing grows with the vocabulary but one comparison per pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ape_model.geometry import corners
from ape_model.nms import nms_keep

__all__ = ["MAX_CANDIDATES", "Kept", "keep_regions"]

MAX_CANDIDATES = 2_000
"""Pairs that enter suppression, the strongest first: its work is quadratic."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """K regions of one image, strongest first."""

    queries: Tensor
    """(K,) int64, positions among the queries."""
    prompts: Tensor
    """(K,) int64, positions among the prompts."""
    scores: Tensor
    """(K,) float32, 0..1."""


def keep_regions(
    logits: Tensor, boxes: Tensor, thresholds: Tensor, *, overlap: float, per_prompt: int
) -> Kept:
    """Choose the regions of one image.

    Args:
        logits: (Q, L) alignment of queries and prompts.
        boxes: (Q, 4) cx, cy, w, h in 0..1.
        thresholds: (L,) least score of each prompt, 0..1.
        overlap: IoU above which the weaker of two regions of one prompt falls.
        per_prompt: most regions of one prompt.
    """
    scores = logits.float().sigmoid()
    scores = scores.masked_fill(~torch.isfinite(boxes).all(-1, keepdim=True), 0.0)
    query, prompt = (scores >= thresholds.clamp(min=1e-6)).nonzero(as_tuple=True)
    found = scores[query, prompt]
    if len(found) > MAX_CANDIDATES:
        found, strongest = found.topk(MAX_CANDIDATES)
        query, prompt = query[strongest], prompt[strongest]
    stays = nms_keep(corners(boxes[query]).clamp(0, 1), found, prompt, overlap)
    query, prompt, found = query[stays], prompt[stays], found[stays]
    # Position of each region among those of its own prompt; `stays` is strongest first.
    rank = (prompt[:, None] == prompt).tril(-1).sum(1)
    most = rank < per_prompt
    return Kept(query[most], prompt[most], found[most])
