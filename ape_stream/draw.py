"""Overlay: masks tinted, boxes and labels on top.

Masks are painted as colours crop by crop, large ones first, and blended once over their union, as
supervision's MaskAnnotator has it (equal within one grey level) at a fraction of its cost. Boxes
and labels are supervision's.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ape_stream import masks

if TYPE_CHECKING:
    import supervision as sv
    from numpy.typing import NDArray

    from ape_stream.types import FrameResult, Instances, Mask

__all__ = ["PALETTE", "colours_of", "draw", "palette", "pixelate", "tint"]

OPACITY = 0.5
"""Of masks over the image, 0..1."""
PALETTE = 64
"""Colours of `palette`."""
# M. Okabe and K. Ito, "Color Universal Design", 2008, without black: orange, sky blue, bluish
# green, yellow, blue, vermilion, reddish purple; red, green, blue.
_TOLD_APART = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip


@cache
def palette() -> NDArray[np.uint8]:
    """(64, 3) uint8 BGR, read-only: colours of instances and of the words of the live page.

    The first seven can be distinguished by colour-blind people as well. The others have hues a
    golden angle apart, so neighbours in number differ in colour.
    """
    step = np.arange(PALETTE)
    # OpenCV's hues are 0..179. Close hues also differ in saturation (3 steps) or value (2 steps).
    hsv = np.stack(
        [(step * 180 * 0.618034) % 180, 200 - 60 * (step % 3), 255 - 25 * (step // 3 % 2)], axis=-1
    )
    bgr: NDArray[Any] = cv2.cvtColor(hsv.astype(np.uint8)[None], cv2.COLOR_HSV2BGR)[0]
    bgr = bgr.astype(np.uint8)
    bgr[: len(_TOLD_APART)] = np.array(_TOLD_APART, np.uint8)[:, ::-1]
    bgr.flags.writeable = False
    return bgr


def _colour_keys(found: Instances) -> NDArray[np.int64]:
    """(N,) rows of the palette: by track, confirmed or not, and by prompt where there is none."""
    ids = found.track_ids if found.candidate_ids is None else found.candidate_ids
    keys = found.prompt_ids if ids is None else np.where(ids > 0, ids, found.prompt_ids)
    return keys % PALETTE


def colours_of(found: Instances) -> NDArray[np.uint8]:
    """(N, 3) uint8 blue-green-red: the colour of each region in the overlay."""
    return palette()[_colour_keys(found)]


def tint(
    image: NDArray[np.uint8],
    regions: tuple[Mask, ...],
    colours: NDArray[np.uint8],
    opacity: float = OPACITY,
) -> None:
    """Blend the colour of every mask into an image, in place; small masks lie over large ones.

    Args:
        image: (H, W, 3) uint8, writable.
        regions: N masks inside it.
        colours: (N, 3) uint8 in the image's channel order.
        opacity: Of the colour, 0..1.
    """
    corners = masks.boxes([region for region in regions if region.bitmap.size]).astype(int)
    if not len(corners):
        return
    (left, top), (right, bottom) = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    part = image[top:bottom, left:right]  # a view: blending it changes the image
    painted = part.copy()
    for k in masks.paint_order(regions):
        x1, y1, x2, y2 = masks.box(regions[k])
        if x2 > x1:
            target = painted[y1 - top : y2 - top, x1 - left : x2 - left]
            # `copyTo` copies from an image, not from one colour; numpy fills it 30 times slower.
            solid = np.empty_like(target)
            cv2.rectangle(solid, (0, 0), (x2 - x1, y2 - y1), colours[k].tolist(), cv2.FILLED)
            cv2.copyTo(solid, regions[k].bitmap.view(np.uint8), target)
    # Where nothing was painted both are equal, so the blend changes nothing there.
    cv2.addWeighted(painted, opacity, part, 1 - opacity, 0, dst=part)


def pixelate(image: NDArray[np.uint8], boxes: NDArray[np.float32], cells: int = 6) -> None:
    """Make what is in boxes unrecognisable, in place: each becomes a few squares of one colour.

    Boxes are grown by an eighth on each side, because a mask may miss a rim.

    Args:
        image: (H, W, 3) uint8, writable.
        boxes: (N, 4) float32, x1 y1 x2 y2 in pixels.
        cells: Squares along the longer side of a box.
    """
    height, width = image.shape[:2]
    for x1, y1, x2, y2 in boxes.tolist():
        margin = max(2.0, (x2 - x1) / 8, (y2 - y1) / 8)
        left, top = max(0, int(x1 - margin)), max(0, int(y1 - margin))
        part = image[top : min(height, round(y2 + margin)), left : min(width, round(x2 + margin))]
        if part.size:
            step = max(part.shape[:2]) / cells
            few = (max(1, round(part.shape[1] / step)), max(1, round(part.shape[0] / step)))
            # By area: each square is the mean of all that it hides, nothing else is left of it.
            mean = cv2.resize(part, few, interpolation=cv2.INTER_AREA)
            part[:] = cv2.resize(mean, part.shape[1::-1], interpolation=cv2.INTER_NEAREST)


# Symbols and emoji, and what joins and varies them: OpenCV's font draws "?" for each.
_NO_GLYPH = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u200d\u20e3\ufe00-\ufe0f]+"
)


def _label(result: FrameResult, index: int) -> str:
    """What is written at a region: track, words, score; emoji are left out."""
    found = result.instances
    name = result.prompts[int(found.prompt_ids[index])].text
    track = 0 if found.track_ids is None else int(found.track_ids[index])
    words = " ".join(_NO_GLYPH.sub(" ", name).split())
    mark = f"#{track}" if track > 0 else ""
    if not words and not mark:  # of emoji alone
        words = f"prompt {found.prompt_ids[index] + 1}"
    return " ".join(filter(None, [mark, words, f"{found.scores[index]:.2f}"]))


def draw(result: FrameResult) -> NDArray[np.uint8]:
    """The frame with everything that was found drawn in.

    Returns:
        (H, W, 3) uint8 blue-green-red, a new array.
    """
    image = result.frame.image.copy()
    found = result.instances
    if not len(found):
        return image
    import supervision as sv  # noqa: PLC0415 (it takes a second to import)

    keys = _colour_keys(found)
    if found.masks is not None:
        tint(image, found.masks, colours_of(found))
    outlined = sv.Detections(xyxy=found.boxes.copy(), class_id=found.prompt_ids.astype(int))
    boxes, labels = _annotators(found.size)
    image = boxes.annotate(image, outlined, custom_color_lookup=keys)
    texts = [_label(result, index) for index in range(len(found))]
    return labels.annotate(image, outlined, labels=texts, custom_color_lookup=keys)


@cache
def _annotators(size: tuple[int, int]) -> tuple[sv.BoxAnnotator, sv.LabelAnnotator]:
    """Box and label annotators for frames of (height, width) pixels."""
    import supervision as sv  # noqa: PLC0415 (it takes a second to import)

    colours = sv.ColorPalette([sv.Color(r=int(r), g=int(g), b=int(b)) for b, g, r in palette()])
    # Line and text sizes follow the image: at 1080 lines, 3 pixels and a text scale of 0.72.
    short = min(size)
    return (
        sv.BoxAnnotator(color=colours, thickness=max(1, round(short / 400))),
        sv.LabelAnnotator(
            color=colours,
            text_color=sv.Color.BLACK,
            text_scale=max(0.35, short / 1500),
            text_thickness=1,
            text_padding=max(2, short // 150),
            smart_position=True,
        ),
    )
