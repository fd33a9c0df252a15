"""More like this: objects whose states are close to those of an example.

Cosines of states less their mean. They rank, and mean nothing else: no score of a word is like
them, and none of them is a threshold for anything.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ape_stream.errors import UsageError
from ape_stream.index.answer import Answer, FoundFrame, numbered
from ape_stream.index.selection import Outline, select_pairs
from ape_stream.types import Instances, Prompt, PromptSet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from ape_stream.index.asking import Index
    from ape_stream.index.part import Part

__all__ = ["Box", "Within", "like_box", "like_object"]

MODE: Final = "similarity"
_MOST: Final = 20
"""Objects in an answer."""
_SAMPLE: Final = 97
"""Every how many-th row decides the mean."""
_NOWHERE: Final = -2.0
"""Below every cosine: rows of frames that are not asked for."""
_LEAST_IOU: Final = 0.3
"""Of the example's box with that of a query."""


class Box(NamedTuple):
    """A box in pixels."""

    x1: float
    y1: float
    x2: float
    y2: float


class Within(NamedTuple):
    """Where objects are looked for; as in `Index.ask`."""

    start_s: float | None = None
    end_s: float | None = None
    videos: Collection[str] | None = None


EVERYWHERE: Final = Within()


def like_box(index: Index, video: str, frame: int, box: Box, within: Within = EVERYWHERE) -> Answer:
    """Objects like the one in a box of a frame.

    Raises:
        UsageError: there is no such video or frame, or no query of the index is near the box.
    """
    return index.answered(lambda: _like_box(index, video, frame, box, within))


def _like_box(index: Index, video: str, frame: int, box: Box, within: Within) -> Answer:
    part, position = _frame_of(index, video, frame)
    rows = part.rows_of(position)
    height, width = part.size(position)
    boxes = part.rows.box[rows] * np.array([width, height, width, height], np.float32)
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    overlap = (high - low).clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    area = max(0.0, box.x2 - box.x1) * max(0.0, box.y2 - box.y1)
    iou = overlap / np.maximum(areas + area - overlap, 1e-9)
    if not len(iou) or iou.max() < _LEAST_IOU:
        raise UsageError(f"nothing in frame {frame} of {video} is near that box")
    row = np.array([rows.start + int(iou.argmax())], np.intp)
    return _like(index, part.states(row), f"like the box in frame {frame} of {video}", within)


def like_object(index: Index, video: str, track: int, within: Within = EVERYWHERE) -> Answer:
    """Objects like one that is in the index.

    Raises:
        UsageError: there is no such video or object.
    """
    return index.answered(lambda: _like_object(index, video, track, within))


def _like_object(index: Index, video: str, track: int, within: Within) -> Answer:
    states = [
        part.states(np.flatnonzero(part.rows.track == track)) for part in _parts_of(index, video)
    ]
    example = np.concatenate([np.zeros((0, index.store.head.width), np.float32), *states])
    if track < 1 or not len(example):
        raise UsageError(f"{video} has no object {track}: an answer names them")
    return _like(index, example, f"like object {track} of {video}", within)


def _parts_of(index: Index, video: str) -> list[Part]:
    ids = {one.name: one.id for one in index.store.videos.values()}
    if video not in ids:
        raise UsageError(f"no video is called {video!r}; there are: {', '.join(ids):.200}")
    return [part for part in index.store.parts if part.info.video == ids[video]]


def _frame_of(index: Index, video: str, frame: int) -> tuple[Part, int]:
    for part in _parts_of(index, video):
        for position in np.flatnonzero(part.frames.index == frame).tolist():
            return part, position
    raise UsageError(f"frame {frame} of {video} is not in the index")


def _like(index: Index, example: NDArray[np.float32], name: str, within: Within) -> Answer:
    """The rows of the objects that come nearest to an example of (E, C) states."""
    every = [part for part in index.store.parts if part.info.rows]
    mean = np.concatenate([part.states(slice(None, None, _SAMPLE)) for part in every]).mean(axis=0)
    direction = _unit(_unit(example - mean).mean(axis=0, keepdims=True))[0]
    asked = list(index.parts_within(*within))
    searched = sum(len(chosen) for _, chosen in asked)
    asked = [(part, chosen) for part, chosen in asked if part.info.rows]
    parts = [part for part, _ in asked]
    cosines = []
    for part, chosen in asked:
        own = _unit(part.states() - mean) @ direction
        own[~np.isin(part.rows.frame, chosen)] = _NOWHERE
        cosines.append(own)
    limit = _least_cosine(parts, cosines)
    frames: list[FoundFrame] = []
    for part, own in zip(parts, cosines, strict=True):
        frames += _frames(index, part, own, limit)
    return Answer(
        prompts=PromptSet((Prompt(name),)),
        modes=(MODE,),
        frames=numbered(frames),
        recheck=(),
        missing=index.missing_within(*within),
        searched=searched,
        notes=("similarities of states are not calibrated: they rank, and are no scores",),
    )


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)


def _least_cosine(parts: list[Part], cosines: list[NDArray[np.float32]]) -> float:
    """The cosine from which on rows belong to the nearest objects."""
    best: dict[tuple[int, int, int], float] = {}
    for number, (part, own) in enumerate(zip(parts, cosines, strict=True)):
        nearest = np.argsort(-own)[: 50 * _MOST]
        for row in nearest[own[nearest] > _NOWHERE].tolist():
            track = int(part.rows.track[row])
            # Rows of no object are, in one frame, mostly queries that see the same.
            key = (part.info.video, track, 0) if track else (number, 0, int(part.rows.frame[row]))
            best[key] = max(best.get(key, -1.0), float(own[row]))
    return sorted(best.values(), reverse=True)[:_MOST][-1] if best else 1.0


def _frames(
    index: Index, part: Part, cosines: NDArray[np.float32], limit: float
) -> Iterator[FoundFrame]:
    rows = np.flatnonzero(cosines >= limit)
    rows = rows[_one_of_each_object(index, part, rows, cosines[rows])]
    for position in np.unique(part.rows.frame[rows]).tolist():
        own = rows[part.rows.frame[rows] == position]
        part.check_masks(position)
        found = Outline(
            cosines[own].clip(0, 1).astype(np.float32),
            np.zeros(len(own), np.int64),
            part.rows.track[own],
        )
        make = partial(_instances, part, own, found)
        yield index.found_frame(part, position, found, make)


def _one_of_each_object(
    index: Index, part: Part, rows: NDArray[np.intp], cosines: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Which of some rows are the best of their object in a frame: several queries may see one."""
    frames = part.rows.frame[rows].astype(np.int64)
    none = np.zeros(len(rows), np.intp)
    most = index.store.manifest.per_prompt
    chosen = select_pairs(frames, none, cosines, part.rows.box[rows], most)
    seen: set[tuple[int, int]] = set()
    best = []
    for at in chosen.tolist():  # of each frame the strongest come first
        key = (int(frames[at]), int(part.rows.track[rows[at]]))
        if key not in seen:
            best.append(at)
        if key[1]:
            seen.add(key)
    return np.array(best, np.intp)


def _instances(part: Part, rows: NDArray[np.intp], found: Outline) -> Instances:
    """Regions of some rows of one frame, under the example as the only prompt."""
    height, width = part.size(int(part.rows.frame[rows[0]]))
    scale = np.array([width, height, width, height], np.float32)
    return Instances(
        boxes=part.rows.box[rows] * scale,
        scores=found.scores,
        prompt_ids=found.prompt_ids,
        masks=tuple(part.masks(rows, np.zeros(len(rows), np.bool_))),
        size=(height, width),
    )
