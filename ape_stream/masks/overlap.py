"""How much masks have in common: intersection over union, containment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pycocotools import mask as coco

from ape_stream.masks.ops import boxes
from ape_stream.masks.rle import encode_rle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_stream.values.instances import Mask

__all__ = ["containment_matrix", "iou_matrix"]


def iou_matrix(a: Sequence[Mask], b: Sequence[Mask]) -> NDArray[np.float32]:
    """Intersection over union of N by M masks, (N, M) float32 in 0..1; 0 where both are empty."""
    return _overlaps(a, b, crowd=False)


def containment_matrix(a: Sequence[Mask], b: Sequence[Mask]) -> NDArray[np.float32]:
    """Part of the smaller of two masks that lies in the other, (N, M) float32 in 0..1.

    Unlike intersection over union it is 1 for a mask that is a part of another, however small.
    """
    # Intersection over the area of one mask, both ways round: the larger one has the smaller area.
    return np.maximum(_overlaps(a, b, crowd=True), _overlaps(b, a, crowd=True).T)


def _overlaps(a: Sequence[Mask], b: Sequence[Mask], *, crowd: bool) -> NDArray[np.float32]:
    """(N, M) intersections over the union, or over the area of `a` where `b` is a crowd (COCO)."""
    if not a or not b:
        return np.zeros((len(a), len(b)), np.float32)
    # Run lengths need a frame: the smallest that holds all masks, not the real one.
    corners = boxes([*a, *b])
    size = (max(int(corners[:, 3].max()), 1), max(int(corners[:, 2].max()), 1))
    rles = [encode_rle(mask, size) for mask in (*a, *b)]
    found = coco.iou(rles[: len(a)], rles[len(a) :], [int(crowd)] * len(b))
    return np.asarray(found, np.float32).reshape(len(a), len(b))
