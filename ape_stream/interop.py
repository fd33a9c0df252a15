"""To and from `supervision.Detections`, the type that other detectors and annotators use.

Masks stay cut to their boxes on the way: they become a `supervision.CompactMask`, which fills a
dense (N, H, W) array only for the mask that is touched (300 dense 1080p masks are 622 MB).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import supervision as sv

from ape_stream.masks import crop, run_lengths
from ape_stream.values.instances import Instances, Mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ape_stream.values.frame import Frame
    from ape_stream.values.prompts import PromptSet

__all__ = ["UNCONFIRMED", "from_detections", "to_detections"]

UNCONFIRMED = -1
"""`tracker_id` of a region whose track is not yet confirmed: supervision's own habit."""


def to_detections(
    found: Instances, prompts: PromptSet, frame: Frame | None = None
) -> sv.Detections:
    """Instances as `supervision.Detections`.

    Args:
        found: N instances of one frame.
        prompts: What their prompt ids point into.
        frame: The frame, for `metadata`; None leaves it empty.

    Returns:
        `xyxy` (N, 4) float32 pixels, max exclusive; `confidence` (N,) float32 0..1; `class_id`
        (N,) int = prompt id; `data["class_name"]` (N,) the prompts' texts; `mask` a `CompactMask`
        of shape (N, H, W), or None from a model that gives boxes only; `tracker_id` (N,) int,
        `UNCONFIRMED` (-1) where our id is 0, or None before tracking; `metadata` holds stream,
        frame index and time in seconds.
    """
    ids = found.track_ids
    texts = np.array(prompts.texts, dtype=np.str_)
    return sv.Detections(
        xyxy=found.boxes.copy(),  # ours are read-only, and users of supervision write
        mask=None if found.masks is None else _compact(found.masks, found.size),
        confidence=found.scores.copy(),
        class_id=found.prompt_ids.astype(int),
        tracker_id=None if ids is None else np.where(ids > 0, ids, UNCONFIRMED).astype(int),
        data={"class_name": texts[found.prompt_ids]},
        metadata={} if frame is None else _metadata(frame),
    )


def _metadata(frame: Frame) -> dict[str, str | int | float]:
    return {"stream": frame.stream, "frame_index": frame.index, "time_s": frame.time_s}


def from_detections(detections: sv.Detections, size: tuple[int, int]) -> Instances:
    """Take the detections of another library as instances.

    Args:
        detections: N detections; `class_id` counts as prompt id (0 where it is None), a missing
            `confidence` as 1. Where `mask` is None, so are the masks.
        size: Height and width of the frame in pixels.

    Returns:
        The N instances in the same order; track ids below 1 become 0, "not confirmed".

    Raises:
        ValueError: a mask is not of the frame's size.
    """
    n = len(detections)
    ids = detections.tracker_id
    return Instances(
        boxes=detections.xyxy.astype(np.float32),
        scores=_column(detections.confidence, n, 1.0).astype(np.float32),
        prompt_ids=_column(detections.class_id, n, 0).astype(np.int64),
        masks=None if detections.mask is None else tuple(_masks(detections, size)),
        size=size,
        track_ids=None if ids is None else np.maximum(ids, 0).astype(np.int64),
    )


def _column(values: NDArray[np.generic] | None, n: int, missing: float) -> NDArray[np.generic]:
    return np.full(n, missing) if values is None else values


def _compact(masks: Sequence[Mask], size: tuple[int, int]) -> sv.CompactMask:
    """N cut masks as run lengths, without a dense frame in between."""
    if not masks:
        none = np.zeros((0, 2), np.int32)
        return sv.CompactMask([], none, none, size)
    # CompactMask has no crop of zero pixels: an empty mask becomes one background pixel.
    crops = [mask.bitmap if mask.bitmap.size else np.zeros((1, 1), np.bool_) for mask in masks]
    corners = [(mask.x, mask.y) if mask.bitmap.size else (0, 0) for mask in masks]
    return sv.CompactMask(
        rles=[run_lengths(one, "F").astype(np.int32) for one in crops],
        crop_shapes=np.array([one.shape for one in crops], np.int32),
        offsets=np.array(corners, np.int32),
        image_shape=size,
    )


def _masks(detections: sv.Detections, size: tuple[int, int]) -> Iterator[Mask]:
    assert detections.mask is not None  # noqa: S101 (the caller asked)
    if detections.mask.shape[1:] != size:
        raise ValueError(f"masks are {detections.mask.shape[1:]}, the frame is {size}")
    # One at a time: a CompactMask makes each dense only when it is asked for.
    for i in range(len(detections)):
        yield crop(np.asarray(detections.mask[i], np.bool_))
