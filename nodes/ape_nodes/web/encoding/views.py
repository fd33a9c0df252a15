"""What the masks of a result show: instances, the prompt of every pixel, or its segment.

All three become a label map and one row for each label, so a page draws them alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ape_nodes.web.encoding.labels import LABELS, label_map
from ape_stream.masks import segment_boxes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_nodes.web.protocol import View
    from ape_stream.types import FrameResult, MapKind, PanopticMap

__all__ = ["Row", "has_view", "regions_of"]

Row = tuple[int, float | None, int, int, int, int, int]
"""Position of the prompt, score (None where there is none), track id or 0, x1 y1 x2 y2."""
_STEP = 2
"""Pixels of the frame from one of the label map to the next."""


def has_view(result: FrameResult, view: View | MapKind) -> bool:
    """Whether a result has what the view shows: the model makes maps only where they are wanted."""
    return view == "instances" or getattr(result.maps, view) is not None


def regions_of(result: FrameResult, view: View) -> tuple[NDArray[np.uint8], list[Row]]:
    """The label map of a view, (ceil(H / 2), ceil(W / 2)) uint8, and the row of each label.

    Label 0 is nothing, k is row k - 1; what comes after the first 255 rows has no label.

    Raises:
        UsageError: the result has no such map (see `has_view`).
    """
    if view == "semantic":
        return _semantic(result)
    if view == "panoptic":
        return _panoptic(result.panoptic())
    found = result.instances
    tracks = [0] * len(found) if found.track_ids is None else found.track_ids.tolist()
    rows = zip(
        found.prompt_ids.tolist(), [round(score, 3) for score in found.scores.tolist()], tracks,
        *np.rint(found.boxes).astype(int).reshape(-1, 4).T.tolist(), strict=True,
    )  # fmt: skip
    return label_map(found.masks or (), found.size, _STEP), list(rows)


def _semantic(result: FrameResult) -> tuple[NDArray[np.uint8], list[Row]]:
    """One row for each prompt that has a pixel; a prompt of a pixel has no score of its own."""
    ids = result.semantic()
    boxes = segment_boxes(ids)
    return _labelled(ids, list(boxes)), [
        (k - 1, None, 0, x, y, x + w, y + h) for k, (x, y, w, h) in boxes.items()
    ]


def _panoptic(found: PanopticMap) -> tuple[NDArray[np.uint8], list[Row]]:
    """One row for each segment."""
    boxes = segment_boxes(found.ids)
    segments = [segment for segment in found.segments if segment.id in boxes]
    rows: list[Row] = []
    for segment in segments:
        x, y, w, h = boxes[segment.id]
        rows.append((segment.prompt_id, round(segment.score, 3), 0, x, y, x + w, y + h))
    return _labelled(found.ids, [segment.id for segment in segments]), rows


def _labelled(ids: NDArray[np.uint16], present: Sequence[int]) -> NDArray[np.uint8]:
    """A map of ids (H, W) as a label map: the k-th of `present` gets the label k + 1."""
    labels = np.zeros(1 + int(ids.max(initial=0)), np.uint8)
    for k, one in enumerate(present[:LABELS]):
        labels[one] = k + 1
    return labels[ids[::_STEP, ::_STEP]]
