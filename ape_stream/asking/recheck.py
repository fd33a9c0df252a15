"""The network on just the frames of an answer that are not certain."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.errors import ConfigError
from ape_stream.index.alignment import Head
from ape_stream.index.answer import SENTENCE, FoundFrame, numbered
from ape_stream.index.vectors import PERCEIVER
from ape_stream.plugins import make
from ape_stream.protocols import GivesQueries
from ape_stream.trackers.iou import box_iou
from ape_stream.types import PromptKind, PromptSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ape_stream.asking.videos import Videos
    from ape_stream.index import Answer, Index
    from ape_stream.protocols import Perceiver
    from ape_stream.types import Frame, Instances

__all__ = ["open_network", "recheck"]

BEST_FRAMES: Final = 24
"""Frames of a sentence on which the network runs."""
_SAME_OBJECT: Final = 0.5
"""IoU of boxes from which on a region of the network is on a track of the index."""


def open_network(index: Index, device: str = "auto") -> Perceiver:
    """Load the network that an index was made with.

    Raises:
        ConfigError: the model of this name here is another one.
        ModelError: it is not here.
    """
    manifest, planned = index.store.manifest, _options_of_plan(index)
    options = {
        **planned,
        "model": manifest.model,
        "device": device,
        "dtype": manifest.dtype,
        "threshold": manifest.threshold,
        "per_prompt": manifest.per_prompt,
    }
    perceiver: Perceiver = make("perceivers", PERCEIVER, options=options)
    if isinstance(perceiver, GivesQueries):
        if perceiver.facts.resizing != manifest.resizing:
            raise ConfigError(
                f"model {manifest.model} here resizes images in another way"
                f" ({perceiver.facts.resizing}) than for the index ({manifest.resizing}): its"
                " frames cannot be checked with it; make the index again"
            )
        # An index of a live run does not say of what bank the digest knows.
        other = bool(planned) and perceiver.facts.weights != manifest.weights
        head = Head(**perceiver.facts.alignment, basis=index.store.head.basis)
        if other or head.digest != manifest.head:
            raise ConfigError(
                f"model {manifest.model} here has other weights than the one of the index: its"
                " frames cannot be checked with it"
            )
    return perceiver


def _options_of_plan(index: Index) -> dict[str, Any]:
    """What the perceiver was made with, such as its canvas; nothing for an index of a live run."""
    try:
        plan = json.loads((index.store.root / "plan.json").read_text(encoding="utf-8"))
        options: dict[str, Any] = plan["find"]["model"]["options"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return options


def recheck(
    index: Index,
    answer: Answer,
    perceiver: Perceiver,
    videos: Videos,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Answer:
    """Run the network on the frames of `answer.recheck`, and on the best ones of sentences.

    Of a sentence only what the network finds on its best frames stays in the answer.

    Args:
        index: That gave the answer.
        answer: The answer.
        perceiver: Of `open_network`.
        videos: Where frames are read.
        progress: Called with the frames done and all of them.

    Raises:
        UsageError: a video is not here.
        SourceError: it cannot be read.
    """
    sentences = {k for k, mode in enumerate(answer.modes) if mode == SENTENCE}
    wanted = _wanted(answer, sentences)
    total, done = sum(map(len, wanted.values())), 0
    perceiver.prepare(
        PromptSet(
            tuple(
                replace(p, kind=PromptKind.SENTENCE if k in sentences else PromptKind.VOCABULARY)
                for k, p in enumerate(answer.prompts)
            )
        )
    )
    frames = {(one.video.id, one.index): _without(one, sentences) for one in answer.frames}
    checked: set[tuple[int, int]] = set()
    for video_id, numbers in wanted.items():
        for frame in videos.frames(index.store.videos[video_id], numbers):
            (found,) = perceiver.perceive([frame])
            key = video_id, frame.index
            frames[key] = _from_network(index, video_id, frame, found)
            checked.add(key)
            done += 1
            progress(done, total)
    ordered = sorted(frames.items())
    left = [one for one in answer.recheck if (one.video.id, one.index) not in checked]
    return replace(
        answer,
        frames=numbered(one for _, one in ordered if len(one)),
        recheck=tuple(left),
        modes=tuple("sentence on its best frames" if m == SENTENCE else m for m in answer.modes),
        notes=(*_kept_notes(answer), f"the network ran on {done} frames"),
    )


def _wanted(answer: Answer, sentences: set[int]) -> dict[int, set[int]]:
    """Numbers of frames, by video."""
    wanted: defaultdict[int, set[int]] = defaultdict(set)
    for one in answer.recheck:
        if not sentences.issuperset(one.prompts):
            wanted[one.video.id].add(one.index)
    for sentence in sentences:
        scored = [
            (-float(one.scores[one.prompt_ids == sentence].max()), one.video.id, one.index)
            for one in answer.frames
            if (one.prompt_ids == sentence).any()
        ]
        for _, video, number in sorted(scored)[:BEST_FRAMES]:
            wanted[video].add(number)
    return dict(sorted(wanted.items()))


def _kept_notes(answer: Answer) -> Iterable[str]:
    return (note for note in answer.notes if "answered as a name" not in note)


def _without(frame: FoundFrame, prompts: set[int]) -> FoundFrame:
    """A frame without the regions of some prompts."""
    keep = ~np.isin(frame.prompt_ids, sorted(prompts))
    if keep.all():
        return frame
    return replace(
        frame,
        scores=frame.scores[keep],
        prompt_ids=frame.prompt_ids[keep],
        objects=frame.objects[keep],
        make=partial(_selected, frame.make, keep),
    )


def _selected(make: Callable[[], Instances], keep: NDArray[np.bool_]) -> Instances:
    return make().select(keep)


def _from_network(index: Index, video_id: int, frame: Frame, found: Instances) -> FoundFrame:
    boxes, tracks = index.objects_in(video_id, frame.index)
    overlap = box_iou(found.boxes, boxes)  # (N, R)
    objects = np.zeros(len(found), np.int64)
    if overlap.size:
        nearest = overlap.argmax(axis=1)
        near = overlap[np.arange(len(found)), nearest] >= _SAME_OBJECT
        objects[near] = tracks[nearest[near]]
    return FoundFrame(
        video=index.store.videos[video_id],
        index=frame.index,
        time_s=frame.time_s,
        pts=frame.pts,
        file=frame.origin,
        size=frame.size,
        scores=found.scores,
        prompt_ids=found.prompt_ids,
        objects=objects,
        make=lambda: found,
    )
