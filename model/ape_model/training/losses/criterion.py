"""All losses of a training step, weighted: of tokens, of every decoder layer, of masks.

Three differences to the official criterion: predictions are assigned to regions one-to-many in both
stages (DETA), scores predict the IoU of the box (quality focal loss), and cross entropies between
all names, or all regions of an image, are added to the losses of single scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ape_model.config import NANO
from ape_model.network.align import Align
from ape_model.network.boxes import corners
from ape_model.training.losses.assignment import (
    assign_queries,
    assign_tokens,
    best_queries,
    equal_weights,
)
from ape_model.training.losses.functional import (
    box_losses,
    focal_loss,
    quality_focal_loss,
)
from ape_model.training.losses.masks import mask_losses
from ape_model.training.losses.semantic import (
    head_map_loss,
    map_loss,
    semantic_shares,
    token_shares,
)

if TYPE_CHECKING:
    from ape_model.network.ape import Ape, ImageFeatures, RawOutputs
    from ape_model.training.data.batch import Batch

__all__ = [
    "CLASSIFICATIONS",
    "Criterion",
    "Targets",
    "choose_region",
    "map_loss",
    "semantic_shares",
]

CLASSIFICATIONS = ("quality", "focal")
"""What a score predicts: the IoU of the box (quality focal loss), or only whether the prompt is
true (focal loss, as in the official criterion)."""

LEAST_FIT = 1e-4  # of a class that no query has: still, one query is the best
THRESHOLDS = (0.5, 0.6, 0.6)
"""IoU from which a query is assigned to a region, by decoder layer; the last one for the rest."""
WEIGHTS = {
    "objectness": 2.0,
    "token_l1": 5.0,
    "token_giou": 2.0,
    "token_class_ce": 1.0,
    "pooled_class_ce": 1.0,
    "align": 2.0,
    "l1": 5.0,
    "giou": 2.0,
    "class_ce": 0.5,
    "referring_ce": 1.0,
    "mask": 2.0,
    "dice": 2.0,
    "projection": 1.0,
    "affinity": 1.0,
    "semantic": 1.0,
    "token_map": 0.5,
    "feature_map": 0.5,
}
"""Weights of the sum. `l1` and `giou` are those of the official criterion; the others were chosen
on the drawn world."""


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Which prompts are true of which regions."""

    truth: Tensor
    """(B, G, P) float32, 1 where a prompt is true of a region."""
    names: Tensor | None = None
    """(C, D) vectors of the main names, for the cross entropies; None in a step with phrases."""
    classes: Tensor | None = None
    """(B, G) int64 row of `names` of each region, any in padding; None in a step with phrases."""
    single: bool = True
    """Whether a phrase describes one region of its image and no other (an expression)."""
    semantic: float = 0.0
    """Weight of the semantic map's loss; 0: none."""


class Criterion(nn.Module):
    """Computes all losses of a step; has weights of its own: class heads on tokens and on pixels.

    Args:
        width: Channels of a token.
        text_width: Channels of a prompt.
        classification: One of `CLASSIFICATIONS`.
    """

    def __init__(self, width: int, text_width: int, classification: str = "quality") -> None:
        super().__init__()
        self.classification = classification
        # Used in training alone: it makes the tokens themselves separate the names, before any
        # query has learnt to find them.
        self.token_align = Align(width, text_width)
        # The same on the mask feature, before any query's mask vector separates the names there.
        self.pixel_align = Align(NANO.mask_channels, text_width)
        for head in (self.token_align, self.pixel_align):
            nn.init.orthogonal_(head.dot_product_projection_text.weight)
            nn.init.constant_(head.log_scale, -1.0)

    def forward(
        self,
        model: Ape,
        features: ImageFeatures,
        outputs: RawOutputs,
        batch: Batch,
        targets: Targets,
        *,
        apart: bool = False,
    ) -> dict[str, Tensor]:
        """Compute every loss, already weighted.

        Args:
            model: Whose heads compute classes and masks.
            features: Of the model for this batch.
            outputs: Of the model for this batch.
            batch: Images and regions.
            targets: Prompts that are true of the regions.
            apart: Cut the gradient between tokens and the class head on them.

        Returns:
            Scalars by name, the keys of `WEIGHTS`; those of the decoder layers are summed.
        """
        losses = self._tokens(features, outputs, batch, targets, apart=apart)
        losses |= self._maps(features, outputs, batch, targets, apart=apart)
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
        """First stage: objectness and boxes of tokens, and classes of regions.

        N tokens of all levels; K of them, in all images, are assigned to regions.
        """
        padded = features.geometry.padded  # (B, N)
        anchors = features.geometry.anchors[0].sigmoid()  # (N, 4), the same in all images
        region = assign_tokens(
            corners(anchors),
            corners(batch.boxes),
            batch.valid,
            padded=padded,
            shares=token_shares(batch.masks) if targets.semantic else None,
        )
        # Assigned by anchors and not by predicted boxes (DETA): targets do not depend on weights.
        objectness = outputs.tokens.objectness  # (B, N)
        boxes = outputs.tokens.all_boxes().sigmoid()  # (B, N, 4)
        positive = region >= 0  # (B, N)
        weight = equal_weights(region, batch.boxes.shape[1])[positive]  # (K,)
        # Indexing with a mask and `nonzero` list the K positives in the same (row-major) order.
        image, _ = positive.nonzero(as_tuple=True)  # (K,)
        target = batch.boxes[image, region[positive]]  # (K, 4)
        l1, giou = box_losses(boxes[positive], target)  # (K,) each
        # Objectness predicts how well the token's own box fits. GIoU stands for IoU here: they
        # differ by the uncovered part of the hull, which is small for boxes that overlap well.
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
        if targets.names is not None and targets.classes is not None:
            states = outputs.tokens.states.detach() if apart else outputs.tokens.states
            wanted = targets.classes[image, region[positive]]  # (K,)
            ce = self._class_cross_entropy(states[positive], targets.names, wanted)
            found["token_class_ce"] = (ce * weight).sum() / regions
            # The same head on the mean token of each mask, which needs no assignment.
            pooled, wanted = _pool(states, batch)[batch.valid], targets.classes[batch.valid]
            ce = self._class_cross_entropy(pooled, targets.names, wanted)
            found["pooled_class_ce"] = ce.sum() / regions
        return found

    def _maps(
        self,
        features: ImageFeatures,
        outputs: RawOutputs,
        batch: Batch,
        targets: Targets,
        *,
        apart: bool,
    ) -> dict[str, Tensor]:
        """Maps of classes by the heads on the finest tokens and on the mask feature."""
        if not targets.semantic or targets.names is None or targets.classes is None:
            return {}
        grid = features.geometry.levels.shapes[0]
        tokens = outputs.tokens.states[:, : grid[0] * grid[1]].mT.unflatten(-1, grid)  # stride 8
        found = {}
        for name, head, maps in (
            ("token_map", self.token_align, tokens),
            ("feature_map", self.pixel_align, outputs.mask_feature),
        ):
            seen = maps.detach() if apart else maps
            loss = head_map_loss(head, seen, targets.names, batch, targets.classes)
            found[name] = targets.semantic * loss
        return found

    def _classify(self, logits: Tensor, quality: Tensor, there: Tensor) -> Tensor:
        """Loss of each score.

        Args:
            logits: Any shape.
            quality: Same shape, IoU of the box where the score is positive, else 0.
            there: Same shape, bool, whether the score is positive.
        """
        # In both, IoU or 1 is the target of a positive, 0 that of the others.
        if self.classification == "focal":
            return focal_loss(logits, there.to(logits))
        return quality_focal_loss(logits, quality)

    def _class_cross_entropy(self, states: Tensor, names: Tensor, wanted: Tensor) -> Tensor:
        """(K,) cross entropies between all C main names, for K states and their classes."""
        logits = self.token_align(states[None], names[None])[0]  # (K, C)
        return functional.cross_entropy(logits, wanted, reduction="none")

    def _layer(
        self, model: Ape, outputs: RawOutputs, batch: Batch, targets: Targets, layer: int
    ) -> dict[str, Tensor]:
        """Second stage: alignment, boxes and (last layer) masks of the queries of one layer."""
        hidden = outputs.decoded.hidden[layer]  # (B, Q, D)
        canvas = (batch.images.shape[2], batch.images.shape[3])
        # The decoder's boxes are shares of each image; regions are in coordinate units.
        boxes = model.coordinates.from_shares(outputs.decoded.boxes[layer], batch.sizes, canvas)
        threshold = THRESHOLDS[min(layer, len(THRESHOLDS) - 1)]
        align = model.class_embed[layer]
        region, overlap = assign_queries(
            corners(boxes.detach()),
            corners(batch.boxes),
            batch.valid,
            threshold,
            _fit(align, hidden.detach(), targets) if targets.semantic else None,
        )  # (B, Q) each
        positive = region >= 0
        count = positive.sum().clamp(min=1)
        image, _ = positive.nonzero(as_tuple=True)  # (K,)
        l1, giou = box_losses(boxes[positive], batch.boxes[image, region[positive]])
        logits = align(hidden, outputs.text)  # (B, Q, P)
        # A prompt that is true of the query's region should score its IoU, every other one zero.
        quality = targets.truth[image, region[positive]] * overlap[positive][:, None]  # (K, P)
        wanted = torch.zeros_like(logits)
        wanted[positive] = quality
        found = {
            "align": self._classify(logits, wanted, wanted > 0).sum() / count,
            "l1": l1.sum() / count,
            "giou": giou.sum() / count,
        }
        if targets.names is not None and targets.classes is not None:
            by_name = align(hidden[positive][None], targets.names[None])[0]  # (K, C)
            right = targets.classes[image, region[positive]]
            found["class_ce"] = functional.cross_entropy(by_name, right, reduction="sum") / count
        elif targets.single:
            best = best_queries(corners(boxes.detach()), corners(batch.boxes))
            found["referring_ce"] = choose_region(logits, best, batch.valid, targets.truth)
        if layer == len(outputs.decoded.hidden) - 1:
            found |= mask_losses(model, outputs, batch, region)
            if targets.semantic and targets.names is not None and targets.classes is not None:
                scores = align(hidden, targets.names[None]).sigmoid()  # (B, Q, C)
                masks = model.mask_head.logits(hidden, outputs.mask_feature).sigmoid()
                shares = semantic_shares(scores, masks)
                loss = map_loss(shares.log(), batch, targets.classes)
                found["semantic"] = targets.semantic * loss
        return found


def _fit(align: nn.Module, hidden: Tensor, targets: Targets) -> Tensor | None:
    """(B, Q, G) root of the probability that a query has the class of a region."""
    if targets.names is None or targets.classes is None:
        return None
    with torch.no_grad():
        classes = align(hidden, targets.names[None]).softmax(-1)  # (B, Q, C)
        rows = targets.classes[:, None].expand(-1, hidden.shape[1], -1)  # (B, Q, G)
        return classes.gather(-1, rows).clamp(min=LEAST_FIT).sqrt()


def choose_region(logits: Tensor, best: Tensor, valid: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy between all regions of an image, for the one that each phrase describes.

    The focal loss scores every query on its own; "the bigger fox" is learnt by comparing the two.

    Args:
        logits: (B, Q, L) of queries and phrases.
        best: (B, G) int64, the best query of each region.
        valid: (B, G) bool, False for padding.
        truth: (B, G, L) float32, 1 where a phrase describes a region. A phrase of no region (a
            negative) or of several (stuff in parts) is left out.

    Returns:
        The mean over the phrases of exactly one region, scalar.
    """
    rows = best[..., None].expand(-1, -1, logits.shape[-1])  # (B, G, L)
    regions = logits.gather(1, rows).masked_fill(~valid[..., None], -torch.inf)  # (B, G, L)
    clear = truth.sum(1) == 1  # (B, L)
    losses = functional.cross_entropy(regions, truth.argmax(1), reduction="none")
    return losses[clear].sum() / clear.sum().clamp(min=1)


def _pool(states: Tensor, batch: Batch) -> Tensor:
    """(B, G, D) mean of the tokens under each region's mask, over strides 8 and 16."""
    # The levels' tokens follow each other in N: `cells` is where the next level starts.
    pools = []
    cells = 0
    for factor in (2, 4):  # masks have stride 4
        share = functional.avg_pool2d(batch.masks, factor).flatten(2)  # (B, G, N_l)
        level = states[:, cells : cells + share.shape[-1]]  # (B, N_l, D)
        cells += share.shape[-1]
        pools.append(share @ level / share.sum(-1, keepdim=True).clamp(min=1e-3))
    return (pools[0] + pools[1]) / 2
