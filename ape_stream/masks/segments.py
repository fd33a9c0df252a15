"""Panoptic maps: from regions that won pixels to segments, and as COCO writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from ape_stream.values.maps import PanopticMap, Segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["id_pixels", "join_segments", "segment_boxes"]


def join_segments(
    winners: NDArray[np.uint16],
    prompt_ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    holds: NDArray[np.bool_],
    stuff: NDArray[np.bool_],
) -> PanopticMap:
    """Number the segments of a frame; all regions of a stuff prompt are one.

    Args:
        winners: (H, W) of `argmax_upsampled`: 0 = nothing, k = region k-1.
        prompt_ids: (K,) of the regions, strongest first.
        scores: (K,) of the regions, 0..1.
        holds: (K,): False for regions that are no segment; their pixels belong to nothing.
        stuff: (P,) which prompts are stuff.
    """
    numbers = np.zeros(len(prompt_ids) + 1, np.uint16)  # segment of each value of `winners`
    firsts: list[int] = []  # the strongest region of each segment
    of_stuff: dict[int, int] = {}
    for region in np.flatnonzero(holds):
        prompt_id = int(prompt_ids[region])
        if prompt_id not in of_stuff:
            firsts.append(int(region))
        number = of_stuff.get(prompt_id, len(firsts))
        if stuff[prompt_id]:
            of_stuff[prompt_id] = number
        numbers[region + 1] = number
    ids = numbers.take(winners)
    # `np.bincount` would make 64-bit numbers of all pixels first.
    areas = cv2.calcHist([ids], [0], None, [len(firsts) + 1], [0, len(firsts) + 1]).ravel()
    segments = tuple(
        Segment(
            id=number,
            prompt_id=int(prompt_ids[region]),
            isthing=not stuff[prompt_ids[region]],
            score=float(scores[region]),
            area=int(areas[number]),
        )
        for number, region in enumerate(firsts, start=1)
        if areas[number]
    )
    return PanopticMap(ids, segments, tuple(stuff.tolist()))


def id_pixels(ids: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """(H, W) segment ids as the pixels of a COCO panoptic PNG.

    Returns:
        (H, W, 3) uint8, blue, green, red: the id is red + 256 green + 65536 blue.
    """
    low, high = (ids & 0xFF).astype(np.uint8), (ids >> 8).astype(np.uint8)
    return np.dstack((np.zeros_like(low), high, low))


def segment_boxes(ids: NDArray[np.uint16]) -> dict[int, tuple[int, int, int, int]]:
    """x, y, width and height in pixels of every id in a map but 0."""
    boxes = {}
    for number in np.flatnonzero(np.bincount(ids.ravel())[1:]) + 1:
        x, y, w, h = cv2.boundingRect((ids == number).view(np.uint8))
        boxes[int(number)] = (x, y, w, h)
    return boxes
