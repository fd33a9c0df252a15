"""One stream's tracker, with identities that survive changes of the prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ape_stream.protocols import Tracker
    from ape_stream.types import Frame, Instances, PromptSet
    from ape_stream.values.prompts import PromptKind

__all__ = ["StreamTracker"]


class StreamTracker:
    """Tracks one stream by the words of the prompts, not by their positions.

    A prompt's position changes whenever others are added, removed or reordered. So a tracker gets
    class ids in place of prompt ids: one number for each text and kind, kept while it stays among
    the prompts. A text that leaves and comes back gets a new number, so its old tracks have ended.

    Where the stream's clock steps back, a new tracker is made. Its ids are shifted past all that
    were given before, so that no id is ever given twice in a stream.

    Args:
        make: Makes a tracker.
    """

    def __init__(self, make: Callable[[], Tracker]) -> None:
        self._make = make
        self._tracker = make()
        self._segment = 0
        self._offset = 0
        self._last_id = 0
        self._prompts: PromptSet | None = None
        self._classes: dict[tuple[str, PromptKind | None], int] = {}  # in the prompts' order
        self._next_class = 0

    def update(self, found: Instances, prompts: PromptSet, frame: Frame) -> Instances:
        """Return the regions with track ids, each under its own prompt id again.

        Args:
            found: What was found in the stream's next frame.
            prompts: What its prompt ids point into.
            frame: The frame.
        """
        if frame.segment != self._segment:
            self._segment = frame.segment
            self._tracker = self._make()
            # The new tracker counts from 1 again.
            self._offset = self._last_id
        class_ids = self._class_ids(prompts)
        tracked = self._tracker.update(
            replace(found, prompt_ids=class_ids[found.prompt_ids]), frame.time_s
        )
        return self._shifted(_under_prompt_ids(tracked, class_ids))

    def _class_ids(self, prompts: PromptSet) -> NDArray[np.int64]:
        """(P,) int64 class id of every prompt."""
        if prompts is not self._prompts:
            # Rebuilt, not extended: a prompt that left loses its number, and its tracks with it.
            before, self._classes, self._prompts = self._classes, {}, prompts
            for prompt in prompts:
                key = (prompt.text, prompt.kind)
                if key not in before:
                    before[key] = self._next_class
                    self._next_class += 1
                self._classes[key] = before[key]
        return np.fromiter(self._classes.values(), np.int64, len(prompts))

    def _shifted(self, tracked: Instances) -> Instances:
        ids, candidates = tracked.track_ids, tracked.candidate_ids
        if ids is None or not len(ids):
            return tracked
        self._last_id = max(self._last_id, int(ids.max()) + self._offset)
        if not self._offset:  # the first segment: ids are the tracker's own
            return tracked
        shifted = None if candidates is None else _shift(candidates, self._offset)
        return tracked.with_track_ids(_shift(ids, self._offset), shifted)


def _shift(ids: NDArray[np.int64], offset: int) -> NDArray[np.int64]:
    """Ids raised by an offset; 0 stays "none"."""
    return np.where(ids > 0, ids + offset, 0)


def _under_prompt_ids(tracked: Instances, class_ids: NDArray[np.int64]) -> Instances:
    """Class ids back to positions among the prompts.

    A tracker may return fewer regions than it was given, or regions of its own; those of a class
    that is not asked for any more are left out.
    """
    # Position of each class id among the prompts, by bisection in their sorted order; an id that is
    # not among them finds a neighbour and is sorted out by the comparison.
    order = np.argsort(class_ids)
    at = np.searchsorted(class_ids[order], tracked.prompt_ids)
    prompt_ids = order[np.minimum(at, len(order) - 1)]
    known = class_ids[prompt_ids] == tracked.prompt_ids
    renamed = replace(tracked, prompt_ids=prompt_ids.astype(np.int64))
    return renamed if known.all() else renamed.select(known)
