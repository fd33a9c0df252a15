"""What is asked of the network at every stage, as one weighted sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ape_model.network.align import Align
from ape_model.network.geometry import corners
from ape_model.training.data.batch import MASK_STRIDE
from ape_model.training.losses.assignment import (
    assign_queries,
    assign_tokens,
    best_queries,
    equal_weights,
)
from ape_model.training.losses.functional import (
    box_losses,
    dice_loss,
    focal_loss,
    quality_focal_loss,
)

if TYPE_CHECKING:
    from ape_model.network.ape import ImageFeatures, RawOutputs
    from ape_model.network.nano import Nano
    from ape_model.training.data.batch import Batch

__all__ = ["CLASSIFICATIONS", "Criterion", "Targets", "choose_region", "semantic_loss"]

CLASSIFICATIONS = ("quality", "focal")
"""What a score is asked to say: how well the box fits (quality focal loss), or only whether there
is something (focal loss, as in the official criterion)."""

EPSILON = 1e-6
THRESHOLDS = (0.5, 0.6, 0.6)
"""IoU from which a query answers for a region, by decoder layer; the last holds for all later."""
WEIGHTS = {
    "objectness": 2.0,
    "token_l1": 5.0,
    "token_giou": 2.0,
    "token_name": 1.0,
    "pooled_name": 1.0,
    "align": 2.0,
    "l1": 5.0,
    "giou": 2.0,
    "name": 0.5,
    "meant": 1.0,
    "mask": 2.0,
    "dice": 2.0,
    "semantic": 1.0,
}


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What the regions of a batch are called."""

    truth: Tensor
    """(B, G, P) float32, 1 where a prompt is true of a region."""
    names: Tensor | None
    """(C, D) main names' vectors, for the losses that choose one name; None in a sentence step."""
    single: bool = True
    """Whether a sentence means one region of its picture and no other (an expression)."""
    semantic: float = 0.0
    """Weight of the semantic map's loss; 0: nobody asks for it."""


class Criterion(nn.Module):
    """All losses of one step; its own weights (a head on tokens) exist in training only.

    Args:
        width: channels of a token.
        text_width: channels of a prompt.
        classification: one of `CLASSIFICATIONS`.
    """

    def __init__(self, width: int, text_width: int, classification: str = "quality") -> None:
        super().__init__()
        self.classification = classification
        self.token_align = Align(width, text_width)
        nn.init.orthogonal_(self.token_align.dot_product_projection_text.weight)
        nn.init.constant_(self.token_align.log_scale, -1.0)

    def forward(
        self,
        model: Nano,
        features: ImageFeatures,
        outputs: RawOutputs,
        batch: Batch,
        targets: Targets,
        *,
        apart: bool = False,
    ) -> dict[str, Tensor]:
        """Compute every loss, already weighted.

        Args:
            model: whose heads are asked.
            features: of the model for this batch.
            outputs: of the model for this batch.
            batch: pictures and regions.
            targets: what they are called.
            apart: the head on tokens learns from them, and they do not learn from it.
        """
        losses = self._tokens(features, outputs, batch, targets, apart=apart)
        for layer in range(len(outputs.decoded.hidden)):
            for name, value in self._layer(model, outputs, batch, targets, layer).items():
                losses[name] = losses[name] + value if name in losses else value
        return {name: WEIGHTS[name] * value for name, value in losses.items()}

    def _tokens(
        self,
        features: ImageFeatures,
        outputs: RawOutputs,
        batch: Batch,
        targets: Targets,
        *,
        apart: bool,
    ) -> dict[str, Tensor]:
        """First stage: objectness and boxes of tokens, and the names of regions."""
        padded = features.geometry.padded
        anchors = features.geometry.anchors[0].sigmoid()
        region = assign_tokens(corners(anchors), corners(batch.boxes), batch.valid, padded=padded)
        objectness = outputs.tokens.objectness
        boxes = outputs.tokens.all_boxes().sigmoid()
        positive = region >= 0
        weight = equal_weights(region, batch.boxes.shape[1])[positive]
        image, _ = positive.nonzero(as_tuple=True)
        target = batch.boxes[image, region[positive]]
        l1, giou = box_losses(boxes[positive], target)
        quality = torch.zeros_like(objectness)
        quality[positive] = (1 - giou.detach()).clamp(0, 1)
        regions = batch.valid.sum().clamp(min=1)
        found = {
            "objectness": self._classify(
                objectness[~padded], quality[~padded], positive[~padded]
            ).sum()
            / positive.sum().clamp(min=1),
            "token_l1": (l1 * weight).sum() / regions,
            "token_giou": (giou * weight).sum() / regions,
        }
        if targets.names is not None:
            states = outputs.tokens.states.detach() if apart else outputs.tokens.states
            wanted = batch.classes[image, region[positive]]
            found["token_name"] = (
                self._choose(states[positive], targets.names, wanted, weight) / regions
            )
            pooled = _pool(states, batch)
            wanted, ones = (
                batch.classes[batch.valid],
                torch.ones(int(regions), device=states.device),
            )
            found["pooled_name"] = (
                self._choose(pooled[batch.valid], targets.names, wanted, ones) / regions
            )
        return found

    def _classify(self, logits: Tensor, quality: Tensor, there: Tensor) -> Tensor:
        """Loss of each score.

        Args:
            logits: any shape.
            quality: same shape, how well the box fits where something is, else 0.
            there: same shape, bool, whether something is.
        """
        if self.classification == "focal":
            return focal_loss(logits, there.to(logits))
        return quality_focal_loss(logits, quality)

    def _choose(self, states: Tensor, names: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
        """Cross entropy of choosing one of all main names, summed with weights."""
        logits = self.token_align(states[None], names[None])[0]
        chosen = functional.cross_entropy(logits, wanted, reduction="none")
        return (chosen * weight).sum()

    def _layer(
        self, model: Nano, outputs: RawOutputs, batch: Batch, targets: Targets, layer: int
    ) -> dict[str, Tensor]:
        """Second stage: alignment, boxes and (last layer) masks of the queries of one layer."""
        hidden = outputs.decoded.hidden[layer]
        canvas = (batch.images.shape[2], batch.images.shape[3])
        boxes = model.to_units(outputs.decoded.boxes[layer], batch.sizes, canvas)
        threshold = THRESHOLDS[min(layer, len(THRESHOLDS) - 1)]
        region, overlap = assign_queries(
            corners(boxes.detach()), corners(batch.boxes), batch.valid, threshold
        )
        positive = region >= 0
        count = positive.sum().clamp(min=1)
        image, _ = positive.nonzero(as_tuple=True)
        l1, giou = box_losses(boxes[positive], batch.boxes[image, region[positive]])
        align = model.class_embed[layer]
        logits = align(hidden, outputs.text)
        quality = targets.truth[image, region[positive]] * overlap[positive][:, None]
        wanted = torch.zeros_like(logits)
        wanted[positive] = quality
        found = {
            "align": self._classify(logits, wanted, wanted > 0).sum() / count,
            "l1": l1.sum() / count,
            "giou": giou.sum() / count,
        }
        if targets.names is not None:
            chosen = align(hidden[positive][None], targets.names[None])[0]
            right = batch.classes[image, region[positive]]
            found["name"] = functional.cross_entropy(chosen, right, reduction="sum") / count
        elif targets.single:
            best = best_queries(corners(boxes.detach()), corners(batch.boxes))
            found["meant"] = choose_region(logits, best, batch.valid, targets.truth)
        if layer == len(outputs.decoded.hidden) - 1:
            found |= _masks(model, outputs, batch, region)
            if targets.semantic and targets.names is not None:
                scores = align(hidden, targets.names[None]).sigmoid()  # (B, Q, C)
                masks = model.mask_logits(hidden, outputs.mask_feature).sigmoid()
                loss = semantic_loss(scores, masks, batch)
                found["semantic"] = targets.semantic * loss
        return found


def choose_region(logits: Tensor, best: Tensor, valid: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy of choosing the region that each sentence means among all of its picture.

    The focal loss asks "is it this one?" of every query for itself; what tells the bigger fox from
    the smaller is the choice between the two.

    Args:
        logits: (B, Q, L) of queries and sentences.
        best: (B, G) int64, the query that answers for each region.
        valid: (B, G) bool, False for padding.
        truth: (B, G, L) float32, 1 for the one region that a sentence means; a sentence that means
            none (a negative) or several (stuff in parts) is not asked about.

    Returns:
        the mean over the other sentences.
    """
    rows = best[..., None].expand(-1, -1, logits.shape[-1])
    regions = logits.gather(1, rows).masked_fill(~valid[..., None], -torch.inf)  # (B, G, L)
    clear = truth.sum(1) == 1
    losses = functional.cross_entropy(regions, truth.argmax(1), reduction="none")
    return losses[clear].sum() / clear.sum().clamp(min=1)


def _pool(states: Tensor, batch: Batch) -> Tensor:
    """Mean token state under each region's mask over strides 8 and 16: (B, G, C)."""
    pools = []
    cells = 0
    for factor in (2, 4):
        share = functional.avg_pool2d(batch.masks, factor).flatten(2)  # (B, G, N_l)
        level = states[:, cells : cells + share.shape[-1]]
        cells += share.shape[-1]
        pools.append(share @ level / share.sum(-1, keepdim=True).clamp(min=1e-3))
    return (pools[0] + pools[1]) / 2


def _masks(model: Nano, outputs: RawOutputs, batch: Batch, region: Tensor) -> dict[str, Tensor]:
    """Mask losses of the last layer's assigned queries, every region weighing the same."""
    logits = model.mask_logits(outputs.decoded.hidden[-1], outputs.mask_feature)
    # A region that is known by its box alone has no mask to learn from.
    positive = (region >= 0) & batch.masked.gather(1, region.clamp(min=0))
    weight = equal_weights(region, batch.boxes.shape[1])[positive]
    image, _ = positive.nonzero(as_tuple=True)
    logits = logits[positive]
    wanted = batch.masks[image, region[positive]]
    near = _near(batch.boxes[image, region[positive]], wanted, batch.unit)
    cells = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * near
    total = weight.sum().clamp(min=1)
    return {
        "mask": ((cells.sum((1, 2)) / near.sum((1, 2))) * weight).sum() / total,
        "dice": (dice_loss(logits, wanted, (1, 2)) * weight).sum() / total,
    }


def semantic_loss(scores: Tensor, masks: Tensor, batch: Batch) -> Tensor:
    """Cross entropy of the semantic map, where every query paints its mask with its names.

    What no single region asks for: that together the queries leave no pixel out, and that the
    right one is the strongest at each (MaskFormer's semantic inference, Cheng et al. 2021,
    section 3.4, as a loss).

    Args:
        scores: (B, Q, C) of queries and names, 0..1.
        masks: (B, Q, h, w) of the queries, 0..1.
        batch: with (B, G, h, w) masks; pixels of no region are not asked about.

    Returns:
        the weighted mean over pixels of regions.
    """
    painted = torch.einsum("bqc,bqhw->bchw", scores, masks)
    share = painted / painted.sum(1, keepdim=True).clamp(min=EPSILON)
    surprise = -share.clamp(min=EPSILON).log()  # (B, C, h, w)
    wanted = surprise[torch.arange(len(surprise))[:, None], batch.classes]  # (B, G, h, w)
    # Every region weighs the root of its area: a pole is no pixel among a road's thousands.
    area = batch.masks.sum((-2, -1), keepdim=True).clamp(min=1)
    weight = batch.masks * batch.valid[..., None, None] / area.sqrt()
    return (wanted * weight).sum() / weight.sum().clamp(min=1)


def _near(boxes: Tensor, masks: Tensor, unit: int) -> Tensor:
    """Weight of mask cells, (K, h, w): 1 within 1.3 boxes, 0.1 beyond, where no mask is read."""
    grown = torch.cat([boxes[:, :2], boxes[:, 2:] * 1.3], dim=-1)
    x1, y1, x2, y2 = (corners(grown) * (unit / MASK_STRIDE)).unbind(-1)
    rows = torch.arange(masks.shape[1], device=masks.device) + 0.5
    cols = torch.arange(masks.shape[2], device=masks.device) + 0.5
    in_rows = (rows > y1[:, None]) & (rows < y2[:, None])
    in_cols = (cols > x1[:, None]) & (cols < x2[:, None])
    return torch.where(in_rows[:, :, None] & in_cols[:, None], 1.0, 0.1)
