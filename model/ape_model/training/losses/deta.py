"""Which predictions learn which regions in the official criterion (DETA, Ouyang-Zhang et al. 2022).

Both stages match by IoU as Faster R-CNN does, a region's best predictions at any IoU, and then keep
at most four of each region. `assignment` has what nano is trained with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from ape_model.network.boxes import box_iou, corners

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FIRST_STAGE", "Pairs", "StageRule", "assign", "second_stage"]


@dataclass(frozen=True, slots=True)
class StageRule:
    """How one stage matches."""

    low: float
    """A prediction whose best IoU is below this is background."""
    high: float
    """From this IoU on it is matched; between both it is neither."""
    samples: int
    """Predictions of an image that are sampled for the match."""
    share: float
    """Largest part of the samples that are matched ones, 0..1; of more, some are drawn."""
    most: int = 4
    """Predictions of one region."""


FIRST_STAGE = StageRule(low=0.3, high=0.7, samples=256, share=0.5)
"""Tokens, matched by their anchors."""


def second_stage(queries: int) -> StageRule:
    """The rule of an image's queries, matched by the proposals that they start from."""
    return StageRule(low=0.6, high=0.6, samples=queries, share=0.25)


class Pairs(NamedTuple):
    """K predictions, each with the region that it learns; one may learn several regions."""

    image: Tensor
    """(K,) int64."""
    prediction: Tensor
    """(K,) int64."""
    region: Tensor
    """(K,) int64."""


@torch.no_grad()
def assign(predicted: Tensor, boxes: Tensor, valid: Tensor, rule: StageRule) -> Pairs:
    """Match the predictions of every image with its regions.

    Where there are more matched predictions than the rule samples, torch's generator of the CPU
    draws.

    Args:
        predicted: (B, K, 4) cx, cy, w, h.
        boxes: (B, G, 4) cx, cy, w, h of the regions, in the same unit.
        valid: (B, G) bool, False for padding, which comes last.
        rule: Of the stage.
    """
    found = []
    for image, (own, regions, there) in enumerate(zip(predicted, boxes, valid, strict=True)):
        if not bool(there.any()):
            continue
        iou = box_iou(corners(regions[there].float()), corners(own.float()))  # (G, K)
        prediction, region = _assign_image(iou, rule)
        found.append(Pairs(torch.full_like(prediction, image), prediction, region))
    if not found:
        none = torch.zeros(0, dtype=torch.int64, device=predicted.device)
        return Pairs(none, none, none)
    return Pairs(*(torch.cat(column) for column in zip(*found, strict=True)))


def _assign_image(iou: Tensor, rule: StageRule) -> tuple[Tensor, Tensor]:
    """(M,) predictions and their regions, of the (G, K) IoU of one image."""
    best, region = iou.max(0)  # (K,) each
    # A region's best predictions are matched at any IoU, all those that tie for it (Faster R-CNN,
    # section 3.1.2, case i); each of them counts for the region that it overlaps most itself.
    matched = (best >= rule.high) | (iou == iou.amax(1, keepdim=True)).any(0)  # (K,)
    positive = _sampled(matched.nonzero()[:, 0], int(rule.samples * rule.share))
    regions, counts = region[positive].unique(return_counts=True)  # (R,)
    # As many as were matched, at most four, and those of the largest IoU with the region: a
    # prediction may come up that was matched with another one.
    ranked = iou[regions].topk(min(rule.most, iou.shape[1]), dim=1).indices  # (R, most)
    kept = torch.arange(ranked.shape[1], device=iou.device) < counts[:, None]  # (R, most)
    return ranked[kept], regions[:, None].expand_as(ranked)[kept]


def _sampled(rows: Tensor, most: int) -> Tensor:
    """At most so many of (M,) rows, drawn at random."""
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows))[:most].to(rows.device)]
