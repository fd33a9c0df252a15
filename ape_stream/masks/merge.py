"""Make one instance of several: duplicates of a thing, and the parts of stuff.

Both work on what was found in one frame, after masks are known. Boxes are not enough: two queries
may draw one thing with boxes that overlap little enough to pass non-maximum suppression.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ape_stream.masks.ops import boxes, empty, window
from ape_stream.masks.overlap import containment_matrix
from ape_stream.values.instances import Instances, Mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["DUPLICATE_CONTAINMENT", "merge_stuff", "suppress_duplicates"]

DUPLICATE_CONTAINMENT = 0.8
"""Part of the smaller of two masks inside the other above which both are the same thing."""


def suppress_duplicates(found: Instances, containment: float = DUPLICATE_CONTAINMENT) -> Instances:
    """Drop regions whose mask lies in that of a stronger region of the same prompt, or around it.

    One query may draw a thing and another a part of it: containment is near 1 for both, where
    intersection over union would be small. The rule is greedy, from the highest score down, as in
    non-maximum suppression.

    Args:
        found: N regions of one frame.
        containment: Part of the smaller mask inside the other, 0..1, above which the weaker region
            is dropped.

    Returns:
        The regions that stay, by descending score where any was dropped; else `found` itself.
    """
    # By descending score: what is kept is stronger than what is compared with it.
    kept: list[int] = []
    own = found.masks_for("finding duplicates")
    extents, prompts = boxes(own).tolist(), found.prompt_ids.tolist()
    for index in np.argsort(-found.scores, kind="stable").tolist():
        same = [
            k for k in kept if prompts[k] == prompts[index] and _meet(extents[k], extents[index])
        ]
        rivals = [own[k] for k in same]
        if not same or containment_matrix([own[index]], rivals).max() <= containment:
            kept.append(index)
    return found if len(kept) == len(found) else found.select(np.array(kept, np.intp))


def _meet(a: list[float], b: list[float]) -> bool:
    """Whether two boxes have a pixel in common."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def merge_stuff(found: Instances, stuff: NDArray[np.bool_]) -> Instances:
    """Unite the regions of every stuff prompt: one sky, however many clouds divide it.

    Args:
        found: N regions of one frame.
        stuff: (P,) bool: which prompts are stuff.

    Returns:
        The things in their order, then one region for each stuff prompt that was found, by prompt
        id: the union of its masks under the highest of its scores. Track ids are lost.
    """
    things = ~stuff[found.prompt_ids]  # (N,)
    if things.all():
        return found
    stuff_ids = np.unique(found.prompt_ids[~things])
    united = (_united(found.select(found.prompt_ids == prompt)) for prompt in stuff_ids)
    parts = [found.select(things), *united]
    return Instances(
        boxes=np.concatenate([part.boxes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        prompt_ids=np.concatenate([part.prompt_ids for part in parts]),
        masks=tuple(mask for part in parts for mask in part.masks_for("merging stuff")),
        size=found.size,
    )


def _united(regions: Instances) -> Instances:
    """All regions of one prompt as one."""
    union = (_union(regions.masks_for("merging stuff")),)
    return Instances(
        boxes=boxes(union),
        scores=regions.scores.max(keepdims=True),  # (1,)
        prompt_ids=regions.prompt_ids[:1],
        masks=union,
        size=regions.size,
    )


def _union(masks: Sequence[Mask]) -> Mask:
    """The pixels of any of the masks; as each is cut to its extent, so is their union."""
    masks = [mask for mask in masks if mask.bitmap.size]
    if len(masks) < 2:
        return masks[0] if masks else empty()
    x1, y1 = min(mask.x for mask in masks), min(mask.y for mask in masks)
    x2, y2 = boxes(masks)[:, 2:].max(axis=0).astype(int).tolist()
    bitmap = np.zeros((y2 - y1, x2 - x1), np.bool_)
    for mask in masks:
        part = replace(mask, x=mask.x - x1, y=mask.y - y1)
        bitmap[window(part, bitmap.shape)] |= mask.bitmap
    return Mask(bitmap, x1, y1)
