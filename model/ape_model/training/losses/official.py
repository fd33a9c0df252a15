"""The criterion that the released models were trained with (APE, section 3.4, on DETA).

Its terms, with their official names: `class`, `bbox`, `giou`, and for masks `mask` and `dice`. The
last decoder layer has the plain name, the others the suffix `_0`, `_1` ..., the tokens `_enc`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, distributed
from torch.nn import functional

from ape_model.network.boxes import box_iou, corners
from ape_model.training.losses.deta import FIRST_STAGE, Pairs, assign, second_stage
from ape_model.training.losses.functional import (
    box_losses,
    dice_loss,
    focal_loss,
    quality_focal_loss,
)
from ape_model.training.losses.points import draw_points, sample
from ape_model.training.ranges import check_at_least, check_one_of, check_share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ape_model.network.ape import Ape, ImageFeatures, RawOutputs
    from ape_model.training.data.batch import Batch
    from ape_model.training.losses.criterion import Targets

__all__ = ["TERMS", "WEIGHTS", "CriterionConfig", "OfficialCriterion", "count_regions"]

WEIGHTS: Final = {"class": 1.0, "bbox": 5.0, "giou": 2.0, "mask": 5.0, "dice": 5.0}
"""Weights of the terms, the same in every layer."""
TERMS: Final = tuple(WEIGHTS)
_ENCODER_TERMS: Final = ("class", "bbox", "giou")
_MASKS: Final = 128
"""Masks that are learnt at once, times images; of more, some are drawn."""


@dataclass(frozen=True, slots=True)
class CriterionConfig:
    """What is learnt from one data set, and how."""

    decoder: tuple[str, ...] = TERMS
    """Terms of the decoder layers; masks only where the data have some."""
    encoder: tuple[str, ...] = _ENCODER_TERMS
    """Terms of the tokens (first stage); their class is object or not."""
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    """Of the terms."""
    alpha: float = 0.25
    """Focal loss: weight of positives, 0..1."""
    gamma: float = 2.0
    """Focal loss: exponent that reduces the loss of easy cases."""
    masks: str = "dense"
    """`dense`: focal loss at every pixel, as the five released models. `points`: cross entropy at
    points drawn near the edge, which needs less memory."""
    points: int = 12544
    """Points of a mask."""
    oversample: float = 3.0
    """Candidates over points."""
    importance: float = 0.75
    """Part of the points that are drawn near the edge, 0..1."""
    quality: bool = False
    """A score predicts the IoU of its box (quality focal loss), as nano's do; else yes or no."""

    def __post_init__(self) -> None:
        """Check terms and ranges.

        Raises:
            ValueError: a term is unknown, or a number out of its range.
        """
        unknown = {*self.decoder, *self.weights} - set(TERMS) | set(self.encoder) - set(
            _ENCODER_TERMS
        )
        if unknown:
            raise ValueError(f"no term {min(unknown)!r}; there are {', '.join(TERMS)}")
        check_one_of(self, "masks", ("dense", "points"))
        check_share(self, "alpha", above_0=True, below_1=True)
        check_at_least(self, 0, "gamma")
        check_share(self, "importance")
        check_at_least(self, 1, "points", "oversample")


class OfficialCriterion:
    """Computes the terms of one data set; has no weights of its own.

    Args:
        config: Terms and weights.
    """

    def __init__(self, config: CriterionConfig | None = None) -> None:
        self.config = CriterionConfig() if config is None else config

    def __call__(
        self,
        model: Ape,
        features: ImageFeatures,
        outputs: RawOutputs,
        batch: Batch,
        targets: Targets,
    ) -> dict[str, Tensor]:
        """Compute every term, already weighted.

        Args:
            model: Whose heads compute classes and masks.
            features: Of the model for this batch.
            outputs: Of the model for this batch.
            batch: Images and regions.
            targets: Prompts that are true of the regions.

        Returns:
            Scalars by name, as `class`, `class_0`, `bbox_enc`.
        """
        boxes = self.target_boxes(model, batch)  # (B, G, 4)
        regions = count_regions(batch.valid)
        proposals = self._shares(model, outputs.proposals.boxes, batch)
        rule = second_stage(proposals.shape[1])
        pairs = assign(proposals, boxes, batch.valid, rule)
        last = len(outputs.decoded.hidden) - 1
        found: dict[str, Tensor] = {}
        for layer, hidden in enumerate(outputs.decoded.hidden):
            terms = self.decoder_layer(
                model.class_embed[layer](hidden, outputs.text),
                outputs.decoded.boxes[layer],
                pairs,
                boxes,
                targets.truth,
            )
            if layer == last and {"mask", "dice"} & set(self.config.decoder):
                terms |= self._masks(model, outputs, batch, pairs)
            suffix = "" if layer == last else f"_{layer}"
            found |= {name + suffix: value for name, value in terms.items()}
        if self.config.encoder:
            terms = self._tokens(model, features, outputs, batch, boxes)
            found |= {f"{name}_enc": value for name, value in terms.items()}
        weights = self.config.weights
        return {
            name: weights[name.partition("_")[0]] * value / regions for name, value in found.items()
        }

    def decoder_layer(
        self, logits: Tensor, predicted: Tensor, pairs: Pairs, boxes: Tensor, truth: Tensor
    ) -> dict[str, Tensor]:
        """Sums of the class and box terms of one decoder layer, not yet weighted.

        Args:
            logits: (B, Q, P).
            predicted: (B, Q, 4) cx, cy, w, h as shares of the image.
            pairs: Queries and the regions that they learn.
            boxes: (B, G, 4) of the regions, likewise.
            truth: (B, G, P) float32, 1 where a prompt is true of a region.
        """
        own = predicted[pairs.image, pairs.prediction]  # (K, 4)
        target = boxes[pairs.image, pairs.region]  # (K, 4)
        found = self._boxes(own, target, self.config.decoder)
        if "class" in self.config.decoder:
            true = truth[pairs.image, pairs.region]  # (K, P)
            if self.config.quality:
                true = true * _paired_iou(own.detach(), target)[:, None]
            found["class"] = self._classify(logits, _spread(true, logits, pairs)).sum()
        return found

    def target_boxes(self, model: Ape, batch: Batch) -> Tensor:
        """(B, G, 4) cx, cy, w, h of the regions as shares of their images."""
        return self._shares(model, batch.boxes, batch)

    @staticmethod
    def _shares(model: Ape, boxes: Tensor, batch: Batch) -> Tensor:
        canvas = (batch.images.shape[2], batch.images.shape[3])
        return model.coordinates.to_shares(boxes, batch.sizes, canvas)

    def _tokens(
        self,
        model: Ape,
        features: ImageFeatures,
        outputs: RawOutputs,
        batch: Batch,
        boxes: Tensor,
    ) -> dict[str, Tensor]:
        """Sums of the first stage's terms: N tokens, matched with regions by their anchors."""
        tokens, geometry = outputs.tokens, features.geometry
        anchors = self._shares(model, geometry.anchors.sigmoid(), batch)  # (B, N, 4)
        pairs = assign(anchors, boxes, batch.valid, FIRST_STAGE)
        # Boxes of the few matched tokens only, image by image as the pairs are.
        own = [
            self._token_boxes(model, outputs, batch, image, pairs.prediction[pairs.image == image])
            for image in range(len(boxes))
        ]
        predicted, target = torch.cat(own), boxes[pairs.image, pairs.region]  # (K, 4) each
        found = self._boxes(predicted, target, self.config.encoder)
        if "class" in self.config.encoder:
            true = torch.ones(len(target), 1, device=target.device)
            if self.config.quality:
                true = _paired_iou(predicted.detach(), target)[:, None]
            logits = tokens.objectness[..., None]  # (B, N, 1)
            losses = self._classify(logits, _spread(true, logits, pairs))[..., 0]  # (B, N)
            # Padding that proposes nothing has logits of minus infinity.
            counts = torch.ones_like(geometry.padded)
            if not model.config.padding_proposes:
                counts = ~geometry.padded
            found["class"] = losses[counts].sum()
        return found

    def _token_boxes(
        self, model: Ape, outputs: RawOutputs, batch: Batch, image: int, tokens: Tensor
    ) -> Tensor:
        """(T, 4) boxes of (T,) tokens of one image, as shares of it."""
        boxes = outputs.tokens.boxes(image, tokens).sigmoid()[None]
        canvas = (batch.images.shape[2], batch.images.shape[3])
        return model.coordinates.to_shares(boxes, batch.sizes[image : image + 1], canvas)[0]

    @staticmethod
    def _boxes(predicted: Tensor, target: Tensor, terms: tuple[str, ...]) -> dict[str, Tensor]:
        l1, giou = box_losses(predicted, target)  # (K,) each
        sums = {"bbox": l1.sum(), "giou": giou.sum()}
        return {name: value for name, value in sums.items() if name in terms}

    def _classify(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Loss of each score."""
        logits = _exact(logits)
        if self.config.quality:
            return quality_focal_loss(logits, wanted, self.config.gamma)
        return focal_loss(logits, wanted, alpha=self.config.alpha, gamma=self.config.gamma)

    def _masks(
        self, model: Ape, outputs: RawOutputs, batch: Batch, pairs: Pairs
    ) -> dict[str, Tensor]:
        """Sums of the mask terms of the last layer's matched queries."""
        known = batch.masked[pairs.image, pairs.region].nonzero()[:, 0]
        most = _MASKS * len(batch.images)
        if len(known) > most:
            known = known[torch.randperm(len(known))[:most].sort().values.to(known.device)]
        image, query, region = (column[known] for column in pairs)
        hidden = outputs.decoded.hidden[-1]
        # Queries of one image share its feature map: masks are made image by image.
        logits = torch.cat(
            [
                model.mask_head.logits(hidden[k, query[image == k]], outputs.mask_feature[k])
                for k in range(len(hidden))
            ]
        )  # (K, h, w)
        return self.mask_terms(_exact(logits), batch.masks[image, region])

    def mask_terms(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Sums of the mask terms.

        Args:
            logits: (K, h, w).
            masks: (K, H, W) float32, the share of each cell that is the region's, 0..1.
        """
        if self.config.masks == "points":
            config = self.config
            points = draw_points(logits, config.points, config.oversample, config.importance)
            cells, wanted = sample(logits, points), sample(masks, points)  # (K, P) each
            each = functional.binary_cross_entropy_with_logits(cells, wanted, reduction="none")
        else:
            if logits.shape[-2:] != masks.shape[-2:]:
                logits = functional.interpolate(
                    logits[:, None], size=masks.shape[-2:], mode="bilinear", align_corners=False
                )[:, 0]
            cells, wanted = logits.flatten(1), masks.flatten(1)  # (K, H * W) each
            # The mask term has the default alpha and gamma in the official code, too.
            each = focal_loss(cells, wanted)
        sums = {"mask": each.mean(1).sum(), "dice": dice_loss(cells, wanted, (1,)).sum()}
        return {name: value for name, value in sums.items() if name in self.config.decoder}


def count_regions(valid: Tensor) -> Tensor:
    """The mean number of regions in a process's batch, at least 1: what sums are divided by."""
    count = valid.sum().float()
    if distributed.is_initialized():
        distributed.all_reduce(count)
        count /= distributed.get_world_size()
    return count.clamp(min=1)


def _paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """(K,) IoU of (K, 4) boxes cx, cy, w, h pair by pair."""
    return box_iou(corners(first)[:, None], corners(second)[:, None])[:, 0, 0].clamp(0, 1)


def _exact(logits: Tensor) -> Tensor:
    """Logits of 16 bits as float32, in which losses are summed; wider ones as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _spread(true: Tensor, logits: Tensor, pairs: Pairs) -> Tensor:
    """(K, P) targets of pairs as a (B, Q, P) target of every score; the larger one of two wins."""
    B, Q, P = logits.shape
    wanted = torch.zeros(B * Q, P, device=logits.device, dtype=_exact(logits).dtype)
    rows = (pairs.image * Q + pairs.prediction)[:, None].expand(-1, P)
    return wanted.scatter_reduce_(0, rows, true.to(wanted), "amax").view(B, Q, P)
