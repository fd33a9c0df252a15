"""What was found in a batch: all passes through the head together, with masks of what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ape_model.inference.selection import pick
from ape_model.inference.transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.inference.cuda_graphs import FrameGraph
    from ape_model.network.ape import Ape, ImageFeatures, PromptFeatures

__all__ = ["Pass", "Regions", "find_regions"]


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """What was found in one image; all but the masks is on the host."""

    boxes: Tensor
    """(K, 4) x1, y1, x2, y2 over the image's width and height, 0..1."""
    scores: Tensor
    """(K,) 0..1."""
    prompts: Tensor
    """(K,) int64 prompt ids."""
    mask_logits: Tensor
    """(K, H, W) over the whole canvas, where the network is; positive is inside."""
    extent: tuple[float, float]
    """Share of the mask's rows and columns that the image covers; the rest is padding."""


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """The prompts that go through the head together: names, or sentences."""

    prompts: PromptFeatures
    """L of them."""
    ids: Tensor
    """(L,) int64 on the host, the prompt id of each."""
    thresholds: Tensor
    """(L,) lowest kept score of each, where the network is."""


def find_regions(
    model: Ape | FrameGraph,
    features: ImageFeatures,
    passes: Sequence[Pass],
    *,
    per_prompt: int = 100,
    room: int | None = None,
) -> list[Regions]:
    """Run the head once per pass on one batch of encoded images and put the results together.

    Args:
        model: the network, or its graphs.
        features: of `model.encode_image`: the backbone has run, once.
        passes: at least one.
        per_prompt: most regions of one prompt.
        room: see `pick`; with it, the host waits for a GPU once.

    Returns:
        What was found, per image, strongest first.
    """
    heads = [model.head(features, one.prompts) for one in passes]
    batches = [
        (outputs.logits[..., : len(one.ids)], outputs.boxes, one.thresholds)
        for one, outputs in zip(passes, heads, strict=True)
    ]
    found: list[list[Regions]] = [[] for _ in features.sizes]
    for one, outputs, images in zip(
        passes, heads, pick(batches, per_prompt=per_prompt, room=room), strict=True
    ):
        for image, (size, picked) in enumerate(zip(features.sizes, images, strict=True)):
            queries = to_device(picked.queries, outputs.logits.device)
            found[image].append(
                Regions(
                    boxes=picked.boxes,
                    scores=picked.scores,
                    prompts=one.ids[picked.prompts],
                    mask_logits=model.region_masks(outputs, image, queries),
                    extent=(size[0] / features.canvas[0], size[1] / features.canvas[1]),
                )
            )
    return [_merged(parts) for parts in found]


def _merged(parts: Sequence[Regions]) -> Regions:
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
