"""What annotation does with a clip: the model on its frames, then tracks and files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream.annotation.first_sightings import with_first_sightings
from ape_stream.annotation.outputs import ClipOutputs
from ape_stream.annotation.records import frame_line, frame_values, instances_of
from ape_stream.files import sampled_digest
from ape_stream.pipeline.tracking import StreamTracker
from ape_stream.plugins import load, make
from ape_stream.protocols import KnowsWeights
from ape_stream.types import FrameResult, PromptSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ape_stream.batch.job import ClipResults
    from ape_stream.protocols import Perceiver
    from ape_stream.types import Frame, Instances

__all__ = ["ADDRESS", "AnnotateJob", "OutputOptions"]

ADDRESS = "ape_stream.annotation.job:AnnotateJob"
"""What workers make the job of; see `ape_stream.batch.job`."""


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Which final files a clip gets."""

    overlay: bool = True
    """Whether a video with everything drawn in is written."""
    blur: list[str] = field(default_factory=list)
    """Prompts whose masks are blurred; with any, the video shows nothing else."""
    pixelate: list[str] = field(default_factory=list)
    """Prompts whose masks are pixelated, in the same way."""
    save_frames: str | None = None
    """"jpg" or "png": frames are written as images, too."""
    rejected: dict[str, list[int]] = field(default_factory=dict)
    """Tracks that were rejected in a review, by clip; they are left out."""


class AnnotateJob:
    """Finds what prompts name, tracks it, writes files; see `Job`.

    Args:
        prompts: Tables of prompts.
        model: Plugin and options of the perceiver.
        tracker: Plugin and options of the tracker; None gives no track ids.
        outputs: See `OutputOptions`.
        batch: Frames in one call of the model.
    """

    def __init__(
        self,
        *,
        prompts: list[dict[str, Any]],
        model: dict[str, Any],
        tracker: dict[str, Any] | None,
        outputs: dict[str, Any],
        batch: int = 1,
    ) -> None:
        self.batch = batch
        self._prompts = PromptSet.of(prompts)
        self._model = model
        self._tracker = tracker
        self._outputs = OutputOptions(**outputs)
        self._perceiver: Perceiver | None = None

    def identity(self) -> dict[str, Any]:
        """The digest of the model's weights, where its plugin names their files."""
        factory = load("perceivers", self._model["plugin"])
        if not isinstance(factory, KnowsWeights):
            return {}
        return {"weights": sampled_digest(map(Path, factory.weights(**self._model["options"])))}

    def load(self) -> None:
        """Load the model and prepare the prompts."""
        options = self._model["options"]
        self._perceiver = make("perceivers", self._model["plugin"], options=options)
        self._perceiver.prepare(self._prompts)

    def describe(self, frames: Sequence[Frame]) -> list[bytes]:
        """Lines of what is found in each frame, without track ids."""
        assert self._perceiver is not None  # noqa: S101 (`load` comes first)
        found = self._perceiver.perceive(frames)
        return [
            frame_line(frame_values(FrameResult(frame, instances, self._prompts)))
            for frame, instances in zip(frames, found, strict=True)
        ]

    def finish(
        self, results: ClipResults, progress: Callable[[int], None]
    ) -> tuple[dict[str, Any], list[Path]]:
        """Track a clip and write its files."""
        counts: Counter[str] = Counter()
        text_of: dict[int, str] = {}  # of each track, by its id
        rejected = self._outputs.rejected.get(results.clip.name, [])
        with ClipOutputs(results, self._outputs) as outputs:
            for result in with_first_sightings(self._tracked(results)):
                kept = _without(result, rejected)
                outputs.write(kept)
                _count(kept, counts, text_of)
                progress(1)
        tracks = Counter(text_of.values())
        texts = self._prompts.texts
        found = {
            "frames": outputs.frames,
            "problem": results.end["problem"],
            "counts": {text: counts[text] for text in texts},
            "tracks": {text: tracks[text] for text in texts},
        }
        return found, outputs.files

    def _tracked(self, results: ClipResults) -> Iterator[FrameResult]:
        tracker = None if self._tracker is None else StreamTracker(self._make_tracker())
        for values, frame in _matched(results.payloads(), results.frames()):
            found = instances_of(values)
            if tracker is not None:
                found = tracker.update(found, self._prompts, frame)
            yield FrameResult(frame, found, self._prompts)

    def _make_tracker(self) -> Callable[[], Any]:
        assert self._tracker is not None  # noqa: S101 (for the type checker)
        return partial(make, "trackers", self._tracker["plugin"], options=self._tracker["options"])


def _matched(
    payloads: Iterator[bytes], frames: Iterator[Frame]
) -> Iterator[tuple[dict[str, Any], Frame]]:
    """What was found in each frame, and the frame, which is read again.

    A damaged clip may decode to other frames a second time: those that are in both are given.
    """
    frame = next(frames, None)
    for payload in payloads:
        values = json.loads(payload)
        while frame is not None and frame.index < values["frame"]:
            frame = next(frames, None)
        if frame is not None and frame.index == values["frame"]:
            yield values, frame


def _without(result: FrameResult, rejected: Sequence[int]) -> FrameResult:
    ids = result.instances.track_ids
    if not rejected or ids is None:
        return result
    kept: Instances = result.instances.select(~np.isin(ids, rejected))
    return FrameResult(result.frame, kept, result.prompts)


def _count(result: FrameResult, counts: Counter[str], text_of: dict[int, str]) -> None:
    """Count the regions of each text, and note the text of each track."""
    found = result.instances
    for index, prompt_id in enumerate(found.prompt_ids.tolist()):
        text = result.prompts[prompt_id].text
        counts[text] += 1
        if found.track_ids is not None and found.track_ids[index] > 0:
            text_of[int(found.track_ids[index])] = text
