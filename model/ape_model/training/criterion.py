"""The whole training loss: what the network says of a batch against the truth.

As in the paper, both stages are assigned one-to-many (DETA), every region counts the same whether
it is a thing or stuff, and names are judged against all names of the world at every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ape_model.geometry import corners
from ape_model.nano import STRIDES
from ape_model.training.assign import assign_queries, assign_tokens, box_iou
from ape_model.training.losses import box_loss, mask_loss, name_loss, pick_loss, quality_focal
from ape_model.training.samples import MASK_STRIDE

if TYPE_CHECKING:
    from ape_model.ape import RawOutputs
    from ape_model.nano import Nano
    from ape_model.training.samples import Batch

__all__ = ["Truth", "criterion"]

MATCH_IOU = (0.5, 0.6, 0.6)
"""Least IoU of a query with its region, per decoder layer."""
MASKS_PER_BATCH = 256
TERMS = ("objectness", "token_box", "token_name", "score", "name", "box", "mask")


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is true of every pair of a region and a prompt."""

    matches: Tensor
    """(B, G, L) bool."""
    sentences: bool
    """The prompts are sentences: regions are picked per prompt, not prompts per region."""


def _rows(boxes: Tensor, assigned: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Image, prediction and region of every assigned prediction, each (K,)."""
    image, prediction = (assigned >= 0).nonzero(as_tuple=True)
    return image, prediction, assigned[image, prediction]


def _token_terms(model: Nano, outputs: RawOutputs, batch: Batch, truth: Truth) -> dict[str, Tensor]:
    unit, config = float(model.nano.unit), model.config
    levels = outputs_levels(outputs, batch)
    anchors = torch.tensor([config.anchor_size * unit * 2**k for k in range(len(STRIDES))])
    assigned = assign_tokens(
        batch.boxes, batch.valid, levels, STRIDES, anchors.to(batch.boxes.device)
    )
    image, token, region = _rows(batch.boxes, assigned)
    boxes = corners(outputs.tokens.boxes[:, :, 0].sigmoid()) * unit
    true_boxes = batch.boxes[image, region]
    found = boxes[image, token]
    quality = torch.zeros_like(outputs.tokens.objectness[..., 0])
    quality[image, token] = box_iou(found.detach(), true_boxes)
    count = max(1, len(image))
    terms = {
        "objectness": 2 * quality_focal(outputs.tokens.objectness[..., 0], quality) / count,
        "token_box": box_loss(found, true_boxes, unit) / count,
    }
    if not truth.sentences:
        align = model.class_embed[0]
        logits = align(outputs.tokens.states[image, token][None], outputs.text)[0]
        terms["token_name"] = name_loss(logits, truth.matches[image, region]) / count
    return terms


def outputs_levels(outputs: RawOutputs, batch: Batch):  # noqa: ANN201
    """Token grids of a batch of unpadded pictures."""
    from ape_model.geometry import Levels  # noqa: PLC0415

    rows, cols = batch.images.shape[-2:]
    return Levels(tuple((rows // stride, cols // stride) for stride in STRIDES))


def _layer_terms(
    model: Nano, outputs: RawOutputs, batch: Batch, truth: Truth, layer: int
) -> dict[str, Tensor]:
    rows, cols = batch.images.shape[-2:]
    scale = torch.tensor([cols, rows, cols, rows], device=batch.boxes.device)
    boxes = corners(outputs.decoded.boxes[layer]) * scale
    hidden = outputs.decoded.hidden[layer]
    assigned, iou = assign_queries(boxes.detach(), batch.boxes, batch.valid, MATCH_IOU[layer])
    image, query, region = _rows(boxes, assigned)
    count = max(1, len(image))
    logits = model.class_embed[layer](hidden, outputs.text)
    right = torch.zeros_like(logits, dtype=torch.bool)
    right[image, query] = truth.matches[image, region]
    terms = {
        "score": 2 * quality_focal(logits, right * iou[..., None]) / count,
        "box": box_loss(boxes[image, query], batch.boxes[image, region], float(model.nano.unit))
        / count,
    }
    if truth.sentences:
        told = [pick_loss(*pair) for pair in zip(logits, right, strict=True)]
        terms["name"] = torch.stack(told).sum() / max(1, int(right.any(1).sum()))
    else:
        own = logits[image, query]
        terms["name"] = 0.5 * name_loss(own, truth.matches[image, region]) / count
    if layer > 0:
        few = torch.randperm(len(image), device=image.device)[:MASKS_PER_BATCH]
        terms["mask"] = _mask_term(model, outputs, batch, hidden, (image[few], query[few], region[few]))
    return terms


def _mask_term(
    model: Nano, outputs: RawOutputs, batch: Batch, hidden: Tensor, rows: tuple[Tensor, ...]
) -> Tensor:
    image, query, region = rows
    vectors = model.mask_embed(hidden[image, query])  # (K, M)
    order = image.argsort()
    image, region, vectors = image[order], region[order], vectors[order]
    counts = torch.bincount(image, minlength=len(batch.images)).tolist()
    logits = torch.cat(
        [
            (part @ feature.flatten(1)).unflatten(-1, feature.shape[1:])
            for part, feature in zip(vectors.split(counts), outputs.mask_feature, strict=True)
        ]
    )
    logits = logits + model.mask_bias
    truth, boxes = batch.masks[image, region], batch.boxes[image, region]
    return mask_loss(logits, truth, boxes, MASK_STRIDE) / max(1, len(image))


def criterion(
    model: Nano, outputs: RawOutputs, batch: Batch, truth: Truth
) -> dict[str, Tensor]:
    """All terms of the loss by name, each averaged over assigned predictions and layers."""
    terms = _token_terms(model, outputs, batch, truth)
    for layer in range(model.config.decoder_layers):
        for name, value in _layer_terms(model, outputs, batch, truth, layer).items():
            terms[name] = terms.get(name, torch.zeros(())) + value
    return terms
