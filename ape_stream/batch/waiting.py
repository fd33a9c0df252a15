"""Which clip next: what no worker has yet, in the order of the clips.

Every event of a job asks for the next task, so nothing here walks over all clips.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ape_stream.batch.state import ClipState

__all__ = ["Waiting"]


class Waiting:
    """The clips that wait for a worker.

    Args:
        states: All clips; those that are over wait for nothing.
        shard_frames: Frames of a shard.
    """

    def __init__(self, states: Iterable[ClipState], shard_frames: int) -> None:
        self._shard_frames = shard_frames
        # A clip stays in a queue for a while after it has gone on: its status says what it is.
        left = [state for state in states if not state.is_over]
        self._find = deque(state for state in left if state.status != "found")
        self._write = deque(state for state in left if state.status == "found")
        self._probe = deque(state for state in self._find if not state.probed)

    def add(self, state: ClipState) -> None:
        """Queue a clip that has become "found", or waits for another try, which goes first."""
        if state.status == "found":
            self._write.append(state)
        else:
            self._find.appendleft(state)

    def next_span(self, workers: int) -> tuple[ClipState, tuple[int, int | None]] | None:
        """The next clip to find in, and which of its shards.

        Args:
            workers: How many can find at once.
        """
        while self._find and not _can_find(self._find[0]):
            self._find.popleft()
        waiting = (state for state in self._find if state.status == "waiting")
        count = sum(1 for _ in islice(waiting, workers))
        for state in self._find:
            # Few clips and many workers: a clip is made in parts, once its length is known.
            if state.status == "waiting" and (count >= workers or state.probed):
                state.status = "finding"
                state.spans = self._spans(state, workers // count)
            if state.status == "finding" and state.spans:
                return state, state.spans.pop(0)
        return None

    def _spans(self, state: ClipState, parts: int) -> list[tuple[int, int | None]]:
        """The shards of a clip in this many parts; the last one goes on to the clip's end."""
        shards = -(-(state.expected or 0) // self._shard_frames)
        length = max(1, -(-shards // max(1, parts)))
        starts = range(0, max(1, shards), length)
        return [(k, k + length if k != starts[-1] else None) for k in starts]

    def next_found(self) -> ClipState | None:
        """The next clip whose final files can be written."""
        while self._write:
            state = self._write.popleft()
            if state.status == "found":
                return state
        return None

    def next_unknown(self) -> ClipState | None:
        """The next clip whose length was not asked for."""
        while self._probe:
            state = self._probe.popleft()
            if not state.is_over:
                return state
        return None


def _can_find(state: ClipState) -> bool:
    return state.status == "waiting" or (state.status == "finding" and bool(state.spans))
