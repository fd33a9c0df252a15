"""The trackers of the `trackers` package (SORT, ByteTrack, OC-SORT, C-BIoU) as ours.

They look at boxes alone: an id of theirs survives a change of class. So every prompt gets a
tracker of its own, and their ids are renumbered over all prompts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ape_stream.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from ape_stream.types import Instances

__all__ = ["TrackersTracker"]

_CLASSES = {
    "bytetrack": "ByteTrackTracker",
    "cbiou": "CBIoUTracker",
    "ocsort": "OCSORTTracker",
    "sort": "SORTTracker",
}


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
        try:
            import trackers  # noqa: PLC0415 (an extra: only who uses it needs it)
        except ModuleNotFoundError as error:
            raise PluginError(
                f"tracker {algorithm!r} needs an extra: pip install 'ape-stream[trackers]'"
            ) from error
        self._make = getattr(trackers, _CLASSES[algorithm])
        self._options = options
        self._by_prompt: dict[int, Any] = {}
        self._ids: dict[tuple[int, int], int] = {}
        self._last_id = 0
        try:
            self._make(**options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"tracker {algorithm!r}: {error}") from error

    def update(self, found: Instances, time_s: float) -> Instances:
        """Return the N regions in their order with track ids, 0 where not yet confirmed."""
        ids = np.zeros(len(found), np.int64)
        # A prompt without a region is updated too: its tracks must get lost in time.
        for prompt in sorted({*self._by_prompt, *found.prompt_ids.tolist()}):
            rows = np.flatnonzero(found.prompt_ids == prompt)
            ids[rows] = self._track(prompt, found.select(rows), time_s)
        return found.with_track_ids(ids)

    def end_tracks(self) -> None:
        """End all tracks; their ids are not given again."""
        self._by_prompt.clear()
        self._ids.clear()

    def _id(self, prompt: int, inner: int) -> int:
        """Our id for one of theirs."""
        if (prompt, inner) not in self._ids:
            self._last_id += 1
            self._ids[prompt, inner] = self._last_id
        return self._ids[prompt, inner]

    def _track(self, prompt: int, found: Instances, time_s: float) -> list[int]:
        import supervision as sv  # noqa: PLC0415 (takes 1 s to import)

        if prompt not in self._by_prompt:
            self._by_prompt[prompt] = self._make(**self._options)
        given = sv.Detections(
            xyxy=found.boxes.copy(),
            confidence=found.scores.copy(),
            data={"row": np.arange(len(found))},  # they change the order
        )
        seen = self._by_prompt[prompt].update(given, timestamp=time_s)
        ids = [0] * len(found)
        for row, inner in zip(seen.data.get("row", ()), seen.tracker_id, strict=True):
            if inner >= 0:
                ids[int(row)] = self._id(prompt, int(inner))
        return ids
