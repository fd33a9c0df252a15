"""Overlay: masks tinted, boxes and labels on top.

Tinting goes by a label map and one table look-up per colour channel, so its cost does not grow with
the number of masks; small masks lie over large ones, as supervision's MaskAnnotator has it. Boxes
and labels are supervision's.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ape_stream import masks

if TYPE_CHECKING:
    import supervision as sv
    from numpy.typing import NDArray

    from ape_stream.types import FrameResult, Instances

__all__ = ["draw"]

OPACITY = 0.5
_PALETTE = 64


@cache
def _palette() -> NDArray[np.uint8]:
    """(64, 3) uint8 BGR: hues a golden angle apart, so neighbours in number differ in colour."""
    step = np.arange(_PALETTE)
    hsv = np.stack(
        [(step * 180 * 0.618034) % 180, 200 - 60 * (step % 3), 255 - 25 * (step // 3 % 2)], axis=-1
    )
    bgr: NDArray[Any] = cv2.cvtColor(hsv.astype(np.uint8)[None], cv2.COLOR_HSV2BGR)[0]
    return bgr.astype(np.uint8)


def _colour_keys(found: Instances) -> NDArray[np.int64]:
    """(N,) rows of the palette: by track, and by prompt where a region has no track yet."""
    keys = found.prompt_ids
    if found.track_ids is not None:
        keys = np.where(found.track_ids > 0, found.track_ids, found.prompt_ids)
    return keys % _PALETTE


def _tint(image: NDArray[np.uint8], found: Instances, colour: NDArray[np.uint8]) -> None:
    """Blend every mask's colour into `image`, in place, over the union of the masks only."""
    x1, y1 = (int(v) for v in np.floor(found.boxes[:, :2].min(axis=0)))
    x2, y2 = (int(v) for v in np.ceil(found.boxes[:, 2:].max(axis=0)))
    labels = masks.label_map(found.masks, found.size)[y1:y2, x1:x2]
    part = image[y1:y2, x1:x2]
    table = np.vstack([np.zeros((1, 3), np.uint8), colour])
    blended = cv2.addWeighted(part, 1 - OPACITY, table[labels], OPACITY, 0)
    np.copyto(part, blended, where=(labels > 0)[..., None])


def _label(result: FrameResult, index: int) -> str:
    found = result.instances
    name = result.prompts[int(found.prompt_ids[index])].text
    track = 0 if found.track_ids is None else int(found.track_ids[index])
    mark = f"#{track} " if track else ""
    return f"{mark}{name} {found.scores[index]:.2f}"


def draw(result: FrameResult) -> NDArray[np.uint8]:
    """The frame with everything that was found drawn in.

    Returns:
        (H, W, 3) uint8 blue-green-red, a new array.
    """
    image = result.frame.image.copy()
    found = result.instances
    if not len(found):
        return image
    keys = _colour_keys(found)
    _tint(image, found, _palette()[keys])
    detections, (boxes, labels) = result.detections, _annotators(found.size)
    image = boxes.annotate(image, detections, custom_color_lookup=keys)
    texts = [_label(result, index) for index in range(len(found))]
    return labels.annotate(image, detections, labels=texts, custom_color_lookup=keys)


@cache
def _annotators(size: tuple[int, int]) -> tuple[sv.BoxAnnotator, sv.LabelAnnotator]:
    """Box and label annotators for frames of (height, width) pixels."""
    import supervision as sv  # noqa: PLC0415 (it takes a second to import)

    palette = sv.ColorPalette([sv.Color(r=int(r), g=int(g), b=int(b)) for b, g, r in _palette()])
    short = min(size)
    return (
        sv.BoxAnnotator(color=palette, thickness=max(1, round(short / 400))),
        sv.LabelAnnotator(
            color=palette,
            text_color=sv.Color.BLACK,
            text_scale=max(0.35, short / 1500),
            text_thickness=1,
            text_padding=max(2, short // 150),
            smart_position=True,
        ),
    )
