"""Regions of a batch: selection from all passes through the head, and masks of what is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ape_model.inference.selection import select
from ape_model.inference.transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.inference.cuda_graphs import CudaGraphRunner
    from ape_model.inference.mask_products import MaskProducts
    from ape_model.inference.selection import HeadBatch
    from ape_model.network.ape import Ape, ImageFeatures, PromptFeatures, RawOutputs

__all__ = [
    "PromptPass",
    "Regions",
    "clip_to_boxes",
    "find_regions",
    "inside_boxes",
    "mask_steps",
    "merged",
    "rounded_masks",
]

MASK_STEPS = 16
"""Mask logits are whole multiples of 1 / 16: so an index holds them in a byte (decisions/0011)."""
OUTSIDE = -20.0
"""Mask logit of cut-off cells; so low that no upsampled pixel next to one is inside."""


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Regions of one image; all but the masks is on the host."""

    boxes: Tensor
    """(K, 4) x1, y1, x2, y2 over the image's width and height, 0..1."""
    scores: Tensor
    """(K,) 0..1."""
    prompts: Tensor
    """(K,) int64 prompt ids."""
    mask_logits: Tensor
    """(K, H, W) over the whole canvas, on the network's device; positive is inside."""
    extent: tuple[float, float]
    """Share of the mask's rows and columns that the image covers; the rest is padding."""

    @property
    def filled(self) -> tuple[float, float]:
        """Rows and columns of the mask logits that the image covers."""
        height, width = self.mask_logits.shape[-2:]
        return height * self.extent[0], width * self.extent[1]


@dataclass(frozen=True, slots=True, eq=False)
class PromptPass:
    """The prompts that go through the head together: names, or sentences."""

    prompts: PromptFeatures
    """L of them."""
    ids: Tensor
    """(L,) int64 on the host, the prompt id of each."""
    thresholds: Tensor
    """(L,) lowest kept score of each, on the network's device."""
    stuff: Tensor
    """(L,) bool on the host, which are stuff: their masks may reach beyond their boxes."""


def find_regions(
    model: Ape | CudaGraphRunner | MaskProducts,
    features: ImageFeatures,
    passes: Sequence[PromptPass],
    heads: Sequence[RawOutputs],
    *,
    per_prompt: int = 100,
    capacity: int | None = None,
    mask_margin: float | None = None,
) -> list[Regions]:
    """Select and mask the regions of one batch of images, and merge those of all passes.

    Args:
        model: The network, or its graphs, or what keeps their masks.
        features: Of `model.encode_image`: the backbone has run, once.
        passes: At least one.
        heads: Of `model.head`, one for each pass.
        per_prompt: Most regions of one prompt.
        capacity: See `select`.
        mask_margin: See `ApeConfig.mask_margin`.

    Returns:
        Regions of each image, strongest first.
    """
    batches: list[HeadBatch] = []
    for one, outputs in zip(passes, heads, strict=True):
        # The head may score more columns than there are prompts: padding is cut off.
        count = len(one.ids)
        exact = model.exact_alignment(outputs, one.prompts)
        exact = None if exact is None else exact.of_first(count)
        batches.append((outputs.logits[..., :count], outputs.boxes, one.thresholds, exact))
    selections = select(batches, per_prompt=per_prompt, capacity=capacity)
    found: list[list[Regions]] = [[] for _ in features.sizes]
    for one, outputs, images in zip(passes, heads, selections, strict=True):
        for image, (size, selected) in enumerate(zip(features.sizes, images, strict=True)):
            regions = Regions(
                boxes=selected.boxes,
                scores=selected.scores,
                prompts=one.ids[selected.prompts],
                mask_logits=rounded_masks(model.region_masks(outputs, image, selected.queries)),
                extent=(size[0] / features.canvas[0], size[1] / features.canvas[1]),
            )
            if mask_margin is not None:
                regions = clip_to_boxes(regions, mask_margin, one.stuff[selected.prompts])
            found[image].append(regions)
    return [merged(parts) for parts in found]


def rounded_masks(logits: Tensor) -> Tensor:
    """Mask logits of any shape as float32 in steps of 1/16, from -127/16 to 127/16.

    1/16 is the step of bfloat16 between 8 and 16: of nano's masks 0.04 % of the pixels change.
    """
    return mask_steps(logits) / MASK_STEPS


def mask_steps(logits: Tensor) -> Tensor:
    """The same in sixteenths: whole numbers from -127 to 127, as float32."""
    return (logits.float() * MASK_STEPS).round_().clamp_(-127, 127)


def merged(parts: Sequence[Regions]) -> Regions:
    """The regions of all parts of one image, strongest first."""
    if len(parts) == 1:
        return parts[0]
    scores = torch.cat([part.scores for part in parts])
    order = scores.argsort(descending=True, stable=True)
    logits = torch.cat([part.mask_logits for part in parts])
    return Regions(
        boxes=torch.cat([part.boxes for part in parts])[order],
        scores=scores[order],
        prompts=torch.cat([part.prompts for part in parts])[order],
        mask_logits=logits[to_device(order, logits.device)],
        extent=parts[0].extent,
    )


def clip_to_boxes(regions: Regions, margin: float, exempt: Tensor) -> Regions:
    """End masks at their boxes.

    Args:
        regions: K of them.
        margin: How much a box is grown on each side, as a share of its width and height.
        exempt: (K,) bool on the host, regions whose masks stay as they are.
    """
    logits = regions.mask_logits.float()
    boxes = to_device(regions.boxes, logits.device).float()
    down, across = inside_boxes(boxes, logits, regions.filled, margin)  # (K, H), (K, W)
    kept = down[:, :, None] & across[:, None]  # (K, H, W)
    kept = kept | to_device(exempt, logits.device)[:, None, None]
    return replace(regions, mask_logits=logits.masked_fill(~kept, OUTSIDE))


def inside_boxes(
    boxes: Tensor, masks: Tensor, filled: tuple[float, float], margin: float
) -> tuple[Tensor, Tensor]:
    """Which rows (K, H) and columns (K, W) of masks are inside their grown boxes.

    Args:
        boxes: (K, 4) x1, y1, x2, y2 over the image's width and height.
        masks: (K, H, W), on the device of the boxes.
        filled: Rows and columns of the masks that the image covers.
        margin: See `clip_to_boxes`.
    """
    rows, cols = filled
    # Boxes are shares of the image, not of the canvas. Filled on the device: a copy would wait.
    scale = torch.stack([boxes.new_full((), cols), boxes.new_full((), rows)])
    grown = margin * (boxes[:, 2:] - boxes[:, :2])  # (K, 2)
    # One cell more: the upsampled border of a mask lies between two cells.
    low, high = (boxes[:, :2] - grown) * scale - 1, (boxes[:, 2:] + grown) * scale + 1
    x = torch.arange(masks.shape[2], device=boxes.device) + 0.5
    y = torch.arange(masks.shape[1], device=boxes.device) + 0.5
    inside_x = (x >= low[:, :1]) & (x <= high[:, :1])  # (K, W)
    inside_y = (y >= low[:, 1:]) & (y <= high[:, 1:])  # (K, H)
    return inside_y, inside_x
