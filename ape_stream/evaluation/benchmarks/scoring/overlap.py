"""Intersection and union of regions: boxes, and masks given as run lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.scoring.records import MaskCodes

__all__ = ["box_iou", "intersection_and_union", "united"]


def box_iou(
    found: NDArray[Any], true: NDArray[np.float64], groups: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(N, M) IoU of boxes x, y, width, height; for groups the part of `found` that lies inside.

    Args:
        found: (N, 4).
        true: (M, 4).
        groups: (M,) crowds and group boxes among the true ones.
    """
    if not len(found) or not len(true):
        return np.zeros((len(found), len(true)))
    iou: NDArray[np.float64] = coco.iou(found.astype(np.float64), true, groups.astype(np.uint8))
    return iou


def united(masks: MaskCodes, rows: NDArray[np.intp]) -> dict[str, Any]:
    """The union of the masks at these positions."""
    union: dict[str, Any] = coco.merge([masks[int(row)] for row in rows])
    return union


def intersection_and_union(
    true: Mapping[str, Any], found: Mapping[str, Any] | None
) -> tuple[int, int]:
    """Pixels that both masks cover, and that either does; without a second mask 0 and the first's.

    Raises:
        ValueError: the masks are of images of different sizes.
    """
    if found is None:
        return 0, int(coco.area(true))
    if list(true["size"]) != list(found["size"]):
        raise ValueError(
            f"a mask is {found['size']} pixels high and wide, its truth {true['size']}"
        )
    pair = [true, found]
    return int(coco.area(coco.merge(pair, intersect=True))), int(coco.area(coco.merge(pair)))
