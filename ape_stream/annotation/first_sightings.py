"""Tracks from their first frame on: what a tracker confirms later is known before it is written.

A tracker gives a thing its id once it was seen often enough. A live run cannot take back what it
has shown by then; a job over files holds frames back until the tracks in them are decided.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from ape_stream.types import FrameResult

__all__ = ["with_first_sightings"]

_LONGEST: Final = 16
"""Frames that are held back at most: they hold images."""


def with_first_sightings(results: Iterable[FrameResult]) -> Iterator[FrameResult]:
    """Give regions that came before the confirmation of their track its id.

    Args:
        results: Of one stream in order, with track ids.

    Yields:
        The same results in order.
    """
    held: deque[FrameResult] = deque()
    for result in results:
        held.append(result)
        _confirm(held)
        while held and (len(held) > _LONGEST or not _is_open(held[0], result)):
            yield held.popleft()
    yield from held


def _tentative(result: FrameResult) -> NDArray[np.int64]:
    """(N,) int64 id that each region will have if its track is confirmed; 0 where that is over."""
    found = result.instances
    if found.track_ids is None or found.candidate_ids is None:
        return np.zeros(len(found), np.int64)
    return np.where(found.track_ids == 0, found.candidate_ids, 0)


def _is_open(result: FrameResult, newest: FrameResult) -> bool:
    """Whether a track of a result may yet be confirmed."""
    tentative = _tentative(result)
    return bool((np.isin(tentative, _tentative(newest)) & (tentative > 0)).any())


def _confirm(held: deque[FrameResult]) -> None:
    """Hand the ids of the newest result back, through consecutive frames."""
    ids = held[-1].instances.track_ids
    for at in range(len(held) - 2, -1, -1):
        tentative = _tentative(held[at])
        known = np.isin(tentative, ids[ids > 0]) if ids is not None else np.zeros(0, np.bool_)
        if not known.any():
            return
        ids = np.where(known, tentative, 0)
        found = held[at].instances
        assert found.track_ids is not None  # noqa: S101 (some are tentative)
        named = found.with_track_ids(np.maximum(found.track_ids, ids), found.candidate_ids)
        held[at] = replace(held[at], instances=named)
