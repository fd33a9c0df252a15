"""The trackers of the `trackers` package (SORT, ByteTrack, OC-SORT, C-BIoU) as ours.

They use boxes alone: an id of theirs survives a change of class. So every prompt gets a
tracker of its own, and their ids are renumbered over all prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ape_stream.errors import ConfigError
from ape_stream.optional import library

if TYPE_CHECKING:
    from ape_stream.types import Instances

__all__ = ["TrackersTracker"]

_CLASSES = {
    "bytetrack": "ByteTrackTracker",
    "cbiou": "CBIoUTracker",
    "ocsort": "OCSORTTracker",
    "sort": "SORTTracker",
}
"""Class of each algorithm."""
_FORGET_S = 600.0
"""Seconds without a region after which a prompt's tracker is forgotten, far over what any loses
tracks in: prompts that were replaced must not be tracked for ever."""


@dataclass(slots=True, eq=False)
class _PromptTracks:
    """The tracker of one prompt."""

    tracker: Any
    seen_s: float
    """When the prompt last had a region."""
    ids: dict[int, int] = field(default_factory=dict)
    """Our ids by those of the tracker."""


class TrackersTracker:
    """One algorithm of the `trackers` package, run once per prompt.

    Args:
        algorithm: Which one.
        options: What its class takes (`lost_track_buffer`, `minimum_iou_threshold`, ...).

    Raises:
        PluginError: the package is not installed.
        ConfigError: there is no such algorithm, or it does not take these options.
    """

    def __init__(
        self,
        *,
        algorithm: Literal["bytetrack", "cbiou", "ocsort", "sort"] = "bytetrack",
        **options: Any,
    ) -> None:
        if algorithm not in _CLASSES:
            raise ConfigError(f"no algorithm {algorithm!r}; there are: {', '.join(_CLASSES)}")
        self._make = getattr(library("trackers", "trackers"), _CLASSES[algorithm])
        self._options = options
        self._by_prompt: dict[int, _PromptTracks] = {}
        self._last_id = 0
        try:
            # Made to be thrown away: a wrong option is an error now, not with the first region.
            self._make(**options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"tracker {algorithm!r}: {error}") from error

    def update(self, found: Instances, time_s: float) -> Instances:
        """Return the N regions in their order with track ids, 0 where not yet confirmed."""
        ids = np.zeros(len(found), np.int64)
        for prompt in set(found.prompt_ids.tolist()) - self._by_prompt.keys():
            self._by_prompt[prompt] = _PromptTracks(self._make(**self._options), time_s)
        # A prompt without a region is updated too: its tracks must get lost in time.
        for prompt, tracks in sorted(self._by_prompt.items()):
            rows = np.flatnonzero(found.prompt_ids == prompt)
            ids[rows] = self._track(tracks, found.select(rows), time_s)
        self._by_prompt = {
            prompt: tracks
            for prompt, tracks in self._by_prompt.items()
            if time_s - tracks.seen_s <= _FORGET_S
        }
        return found.with_track_ids(ids)

    def _track(self, tracks: _PromptTracks, found: Instances, time_s: float) -> list[int]:
        import supervision as sv  # noqa: PLC0415 (takes 1 s to import)

        given = sv.Detections(
            xyxy=found.boxes.copy(),
            confidence=found.scores.copy(),
            data={"row": np.arange(len(found))},  # they change the order
        )
        seen = tracks.tracker.update(given, timestamp=time_s)
        if len(found):
            # Only with regions: `_FORGET_S` counts from the last one.
            tracks.seen_s = time_s
        ids = [0] * len(found)
        for row, inner in zip(seen.data.get("row", ()), seen.tracker_id, strict=True):
            if inner >= 0:  # -1: not confirmed
                ids[int(row)] = self._public_id(tracks, int(inner))
        return ids

    def _public_id(self, tracks: _PromptTracks, inner: int) -> int:
        """The id, unique over all prompts, of a track that has the id `inner` in its tracker."""
        if inner not in tracks.ids:
            self._last_id += 1
            tracks.ids[inner] = self._last_id
        return tracks.ids[inner]
