"""Give regions lasting identities: association by IoU per prompt, with time in seconds.

The rule is SORT's (Bewley et al., 2016, section 3) without the Kalman filter: predict every track
to the frame's time at constant velocity, match tracks and regions of the SAME prompt one to one so
that the sum of overlaps is largest, start a track for what is left. Weak regions may go on with a
track but start none, as in ByteTrack (Zhang et al., 2022, section 3). Everything is counted in
seconds of the stream and not in frames: dropped frames and variable frame rates change nothing.

    tentative --enough hits--> confirmed --missed--> lost --found again--> confirmed
        |missed                                        |max_lost_s
        v                                              v
      removed                                        removed (its id is never given again)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from scipy.optimize import linear_sum_assignment

from ape_stream.masks import iou_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ape_stream.types import Instances, Mask

__all__ = ["IouTracker", "box_iou"]

_NEWEST = 0.5
"""Share of the newest measured velocity in a track's velocity; the rest is its past."""

_OTHER_CORNER = [2, 3, 0, 1]
"""Columns of a box with its corners exchanged."""
_NONE = np.zeros(4, np.float32)
"""No velocity."""


def box_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of (N, 4) and (M, 4) boxes x1 y1 x2 y2: (N, M) float32, 0..1."""
    # By coordinates: planes (N, M) take a third of the time of one array (N, M, 4).
    (ax1, ay1, ax2, ay2), columns = a.T[:, :, None], np.ascontiguousarray(b.T)
    bx1, by1, bx2, by2 = columns
    common = _area(
        np.minimum(ax2, bx2) - np.maximum(ax1, bx1), np.minimum(ay2, by2) - np.maximum(ay1, by1)
    )
    union = _area(ax2 - ax1, ay2 - ay1) + _area(bx2 - bx1, by2 - by1) - common  # (N, M)
    overlap: NDArray[np.float32] = np.zeros_like(common)
    # Two boxes without area have no overlap, not 0 / 0.
    np.divide(common, union, out=overlap, where=union > 0)
    return overlap


def _area(width: NDArray[np.float32], height: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of widths and heights of one shape; a box whose corners are swapped has none."""
    area: NDArray[np.float32] = np.maximum(width, 0) * np.maximum(height, 0)
    return area


@dataclass(slots=True, eq=False)
class _Track:
    """One object as it was last found."""

    prompt_id: int
    box: NDArray[np.float32]
    """(4,) x1 y1 x2 y2, pixels."""
    mask: Mask | None
    """None from a model that gives boxes only."""
    born_s: float
    seen_s: float
    candidate_id: int
    """Its id once it is confirmed, from 1."""
    confirmed: bool = False
    hits: int = 1
    velocity: NDArray[np.float32] | None = None
    """(4,) pixels per second of the centre, for both corners; None before it is first measured."""

    @classmethod
    def born(cls, found: Instances, k: int, time_s: float, candidate_id: int) -> Self:
        prompt_id = int(found.prompt_ids[k])
        mask = None if found.masks is None else found.masks[k]
        return cls(prompt_id, found.boxes[k], mask, time_s, time_s, candidate_id)


def _predicted(tracks: Sequence[_Track], time_s: float) -> NDArray[np.float32]:
    """The boxes of tracks moved on at constant velocity, (T, 4)."""
    # Both corners move alike: the size is not predicted.
    return _boxes(tracks) + _velocities(tracks) * _elapsed(tracks, time_s)


def _extend(matches: Sequence[tuple[_Track, int]], found: Instances, time_s: float) -> None:
    """Go on with tracks, each by its region."""
    tracks, chosen = [track for track, _ in matches], [k for _, k in matches]
    boxes = found.boxes[chosen]  # (M, 4)
    # Movement of the centre, averaged over time (an exponential mean): boxes jitter by a few
    # pixels, which at 30 frames per second reads as a hundred pixels per second.
    moved = boxes - _boxes(tracks)
    moved = (moved + moved[:, _OTHER_CORNER]) / 2  # (M, 4): mean of both corners
    with np.errstate(divide="ignore", invalid="ignore"):  # seen at this very time
        newest = np.divide(moved, _elapsed(tracks, time_s), dtype=np.float32)
    mean = np.float32(_NEWEST) * newest + np.float32(1 - _NEWEST) * _velocities(tracks, newest)
    for track, k, box, velocity in zip(tracks, chosen, boxes, mean, strict=True):
        if time_s > track.seen_s:
            track.velocity = velocity
        track.mask = None if found.masks is None else found.masks[k]
        track.box, track.seen_s = box, time_s
        track.hits += 1


def _boxes(tracks: Sequence[_Track]) -> NDArray[np.float32]:
    """(T, 4) as they were last found."""
    return np.concatenate([track.box for track in tracks]).reshape(-1, 4)


def _velocities(
    tracks: Sequence[_Track], unknown: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """(T, 4); of tracks that have none, those of `unknown`, (T, 4), or 0."""
    rows = _NONE[None].repeat(len(tracks), 0) if unknown is None else unknown
    known = [row if t.velocity is None else t.velocity for t, row in zip(tracks, rows, strict=True)]
    return np.concatenate(known).reshape(-1, 4)


def _elapsed(tracks: Sequence[_Track], time_s: float) -> NDArray[np.float32]:
    """(T, 1) seconds since each was found."""
    return (time_s - np.array([[track.seen_s] for track in tracks])).astype(np.float32)


class IouTracker:
    """Tracks one stream; make one tracker per stream.

    Args:
        overlap: "box" compares boxes predicted to the frame's time; "mask" compares masks as last
            found (slower, and better for regions that overlap or contain each other), and boxes
            where a model gives no masks.
        min_iou: Overlap below which a region is never the track, 0..1.
        min_hits: Sightings after which a track is confirmed and gets its id; before that its
            regions have id 0, and one miss ends it.
        confirm_s: Seconds that must also lie between its first and its last sighting.
        max_lost_s: Seconds without a sighting after which a confirmed track ends.
        start_score: A region with a lower score continues a track but starts none, 0..1.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        overlap: Literal["box", "mask"] = "box",
        min_iou: float = 0.3,
        min_hits: int = 2,
        confirm_s: float = 0.0,
        max_lost_s: float = 1.0,
        start_score: float = 0.0,
    ) -> None:
        if overlap not in {"box", "mask"}:
            raise ValueError(f"overlap is 'box' or 'mask', not {overlap!r}")
        if not 0 < min_iou <= 1 or not 0 <= start_score <= 1:
            raise ValueError("min_iou must be within 0..1 and above 0, start_score within 0..1")
        if min_hits < 1 or confirm_s < 0 or max_lost_s < 0:
            raise ValueError("min_hits must be at least 1, confirm_s and max_lost_s at least 0")
        self._overlap = overlap
        self._min_iou = min_iou
        self._min_hits = min_hits
        self._confirm_s = confirm_s
        self._max_lost_s = max_lost_s
        self._start_score = start_score
        self._tracks: list[_Track] = []
        self._last_id = 0
        self._free_ids: list[int] = []
        """Ids of tracks that ended unconfirmed (a heap): no region ever had them."""
        self._time_s = -np.inf

    def update(self, found: Instances, time_s: float) -> Instances:
        """Return the N regions in their order with track ids.

        Args:
            found: What was found in the stream's next frame.
            time_s: The frame's time, finite, seconds. Where it is less than the last one's, the
                stream has started again: all tracks end.

        Raises:
            ValueError: the time is not finite.
        """
        if not math.isfinite(time_s):
            raise ValueError(f"the time of a frame is {time_s} s")
        restarted, self._time_s = time_s < self._time_s, time_s
        # Before the matching: a track that was lost for too long must not take a region.
        lost = [t for t in self._tracks if restarted or time_s - t.seen_s > self._max_lost_s]
        self._end(lost)
        owners = self._associate(found)
        ids = np.zeros((2, len(found)), np.int64)  # track ids, candidate ids
        for k, track in owners.items():
            self._confirm(track)
            ids[:, k] = track.candidate_id if track.confirmed else 0, track.candidate_id
        return found.with_track_ids(*ids)

    def _associate(self, found: Instances) -> dict[int, _Track]:
        """Match, start and end tracks; return the track of every region that has one."""
        # ByteTrack's two rounds: strong regions choose among all tracks, weak ones among those that
        # are left. A weak region alone is more often wrong than a new thing.
        owners: dict[int, _Track] = {}
        free = list(self._tracks)
        strong = found.scores >= self._start_score
        for group in (np.flatnonzero(strong), np.flatnonzero(~strong)):
            matches = list(self._matches(free, found, group))
            if matches:
                _extend(matches, found, self._time_s)
            for track, k in matches:
                owners[k] = track
                free.remove(track)
        for k in np.flatnonzero(strong).tolist():
            if k not in owners:
                owners[k] = _Track.born(found, k, self._time_s, self._new_id())
                self._tracks.append(owners[k])
        # One miss ends a track that is not confirmed; the others stay, lost, for `max_lost_s`.
        # After the births: an id that is free again is in no region of this frame, so regions with
        # one candidate id in consecutive frames are one track.
        self._end([track for track in free if not track.confirmed])
        return owners

    def _new_id(self) -> int:
        """The smallest id that no region has had: ids stay dense though many tracks never last."""
        if self._free_ids:
            return heappop(self._free_ids)
        self._last_id += 1
        return self._last_id

    def _end(self, tracks: list[_Track]) -> None:
        for track in tracks:
            self._tracks.remove(track)
            if not track.confirmed:
                heappush(self._free_ids, track.candidate_id)

    def _matches(
        self, tracks: list[_Track], found: Instances, group: NDArray[np.intp]
    ) -> Iterator[tuple[_Track, int]]:
        """The best one-to-one pairs of tracks and regions of `group`, each over `min_iou`."""
        # All tracks and regions are assigned at once, by the Hungarian method: taking the largest
        # overlap first could leave another track without its region.
        if not tracks or len(group) == 0:
            return
        overlaps = self._overlaps(tracks, found, group)  # (T, G)
        prompts = np.array([track.prompt_id for track in tracks])
        allowed = prompts[:, None] == found.prompt_ids[group][None, :]  # (T, G)
        # Zero before the assignment: it must not give up a good pair for two unusable ones.
        overlaps = np.where(allowed & (overlaps >= self._min_iou), overlaps, 0)
        rows, cols = linear_sum_assignment(overlaps, maximize=True)
        for row, col in zip(rows.tolist(), cols.tolist(), strict=True):
            if overlaps[row, col] > 0:
                yield tracks[row], int(group[col])

    def _overlaps(
        self, tracks: list[_Track], found: Instances, group: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        masks = [track.mask for track in tracks if track.mask is not None]
        if self._overlap == "mask" and found.masks is not None and len(masks) == len(tracks):
            return iou_matrix(masks, [found.masks[k] for k in group])
        return box_iou(_predicted(tracks, self._time_s), found.boxes[group])

    def _confirm(self, track: _Track) -> None:
        """Confirm a track that was found often enough and for long enough."""
        old_enough = self._time_s - track.born_s >= self._confirm_s
        track.confirmed |= track.hits >= self._min_hits and old_enough
