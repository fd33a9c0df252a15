"""Objects through a video under any name: the rows of a frame are grouped, then tracked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ape_stream.index.layout import Track
from ape_stream.indexing.loops import loops
from ape_stream.trackers.iou import IouTracker, box_iou
from ape_stream.types import Instances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.indexing.loops import Loops
    from ape_stream.indexing.parts import IndexedFrame

__all__ = ["RowTracker", "grouped"]

SAME_IOU: Final = 0.7
"""Rows of one frame whose boxes overlap more are one object; as in suppression."""


class RowTracker:
    """Tracks the rows of one video, frame by frame, by their boxes alone."""

    def __init__(self) -> None:
        self._tracker = IouTracker()
        self._seen: dict[int, _Seen] = {}

    def update(self, frame: IndexedFrame) -> NDArray[np.int64]:
        """The (K,) track ids of the rows of the next frame; 0: not confirmed.

        Several rows of a frame have one id where they are one object.
        """
        height, width = frame.size
        boxes = frame.box * np.array([width, height, width, height], np.float32)
        leaders, owner = grouped(boxes, frame.reference, loops())
        # Rounded, as all that a tracker decides by: not by the last bits of a device.
        found = Instances(
            boxes=np.round(boxes[leaders], 2),
            scores=np.round(frame.reference[leaders], 5),
            prompt_ids=np.zeros(len(leaders), np.int64),
            masks=None,
            size=frame.size,
        )
        ids = self._tracker.update(found, frame.time_s).track_ids
        assert ids is not None  # noqa: S101 (for the type checker)
        for track in ids[ids > 0].tolist():
            seen = self._seen.setdefault(track, _Seen(frame.index, frame.time_s))
            seen.last_frame, seen.end_s = frame.index, frame.time_s
            seen.frames += 1
        return ids[owner]

    def tracks(self, video: int) -> list[Track]:
        """All confirmed tracks so far, by id."""
        return [self._seen[k].track(video, k) for k in sorted(self._seen)]


@dataclass(slots=True)
class _Seen:
    """Where a track was seen so far; see `Track`."""

    first_frame: int
    start_s: float
    last_frame: int = 0
    end_s: float = 0.0
    frames: int = 0

    def track(self, video: int, track: int) -> Track:
        # By name: `asdict` copies every number, and takes ten times as long.
        return Track(
            video=video,
            id=track,
            first_frame=self.first_frame,
            last_frame=self.last_frame,
            start_s=self.start_s,
            end_s=self.end_s,
            frames=self.frames,
        )


def grouped(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], compiled: Loops | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Group rows of one frame that are one object.

    Args:
        boxes: (K, 4) x1 y1 x2 y2, pixels.
        scores: (K,).
        compiled: Loops in place of Python's.

    Returns:
        (L,) the strongest row of each group, (K,) the group of each row.
    """
    order = np.argsort(-scores, kind="stable")
    if compiled is not None:
        return compiled.groups(boxes, order, SAME_IOU)
    near: list[list[int]] = [[] for _ in boxes]
    for row, other in np.argwhere(box_iou(boxes, boxes) > SAME_IOU).tolist():
        near[row].append(other)
    owner = [-1] * len(boxes)
    leaders: list[int] = []
    for row in order.tolist():
        if owner[row] < 0:
            for other in (row, *near[row]):  # a box without area overlaps not even itself
                if owner[other] < 0:
                    owner[other] = len(leaders)
            leaders.append(row)
    return np.array(leaders, np.intp), np.array(owner, np.intp)
