"""A few small images of every track, spread evenly over its life, for the report.

How long a track will be is not known: as in the contact sheet, every `stride`-th sighting is kept,
and where twice as many are kept as are shown, every other one is dropped and the stride doubles.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from ape_stream import masks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.types import FrameResult

__all__ = ["Strips"]

SHOWN: Final = 6
"""Images of a track."""
SIDE: Final = 96
"""Pixels of an image's longer side."""
_AROUND: Final = 0.25
"""Of the surroundings, in parts of the region's longer side."""
_JPEG_QUALITY: Final = 80
"""Of small images in a page that should stay small."""
_DARKENED: Final = 0.45
"""Brightness of what is not the region, over its own."""


@dataclass(slots=True)
class _Track:
    prompt: str
    first_s: float
    last_s: float = 0.0
    frames: int = 0
    scores: float = 0.0
    lowest: float = 1.0
    stride: int = 1
    images: list[bytes] = field(default_factory=list)
    """JPEG."""


class Strips:
    """The tracks of one clip."""

    def __init__(self) -> None:
        self._tracks: dict[int, _Track] = {}

    def add(self, result: FrameResult) -> None:
        """Take a frame's regions."""
        found = result.instances
        if found.track_ids is None:
            return
        for index, track_id in enumerate(found.track_ids.tolist()):
            if track_id > 0:
                self._sighting(result, index, track_id)

    def _sighting(self, result: FrameResult, index: int, track_id: int) -> None:
        found, time_s = result.instances, round(result.frame.time_s, 3)
        if track_id not in self._tracks:
            text = result.prompts[int(found.prompt_ids[index])].text
            self._tracks[track_id] = _Track(text, time_s)
        track = self._tracks[track_id]
        score = round(float(found.scores[index]), 5)
        if track.frames % track.stride == 0:
            track.images.append(_image(result, index))
            if len(track.images) == 2 * SHOWN:
                track.images = track.images[::2]
                track.stride *= 2
        track.frames += 1
        track.last_s = time_s
        track.scores += score
        track.lowest = min(track.lowest, score)

    def lines(self) -> bytes:
        """A line of JSON for each track."""
        lines = [json.dumps(_values(key, track)) for key, track in sorted(self._tracks.items())]
        return "".join(f"{line}\n" for line in lines).encode()


def _values(track_id: int, track: _Track) -> dict[str, Any]:
    spread = np.linspace(0, len(track.images) - 1, min(SHOWN, len(track.images))).round()
    mean = track.scores / track.frames
    return {
        "track": track_id,
        "prompt": track.prompt,
        "frames": track.frames,
        "first_s": track.first_s,
        "last_s": track.last_s,
        "score": round(mean, 4),
        "lowest": track.lowest,
        # A low score is doubtful, and so is a thing that was seen in few frames.
        "doubt": round(1 - mean * (1 - 1 / (1 + track.frames)), 4),
        "images": [base64.b64encode(track.images[int(k)]).decode() for k in spread],
    }


def _image(result: FrameResult, index: int) -> bytes:
    """A region with its surroundings, which are darkened outside of the mask, as JPEG."""
    frame, mask = result.frame, masks.extents(result.instances)[index]
    x1, y1, x2, y2 = masks.box(mask)
    around = round(_AROUND * max(x2 - x1, y2 - y1, 8))
    left, top = max(0, x1 - around), max(0, y1 - around)
    crop = frame.image[top : y2 + around, left : x2 + around]
    inside = np.zeros(crop.shape[:2], np.bool_)
    inside[y1 - top : y2 - top, x1 - left : x2 - left] = mask.bitmap
    # Made small first: everything after it is cheap.
    scale = min(1.0, SIDE / max(crop.shape[:2]))
    size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
    small: NDArray[Any] = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    kept: NDArray[Any] = cv2.resize(inside.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    shown = np.where(kept[..., None] > 0, small, small * _DARKENED).astype(np.uint8)
    _, data = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return bytes(data.tobytes())
