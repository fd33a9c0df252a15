"""Tracks judged on videos with known ids: MOTA and IDF1, by the metrics of `trackers`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream.evaluation.names import name_prompts
from ape_stream.masks import crop, iou_matrix
from ape_stream.optional import library

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ape_stream.evaluation.plan import EvaluationPlan, Report
    from ape_stream.evaluation.timing import TimedPerceiver
    from ape_stream.protocols import Tracker
    from ape_stream.protocols.worlds import AnnotatedImage, World
    from ape_stream.types import Instances

__all__ = ["TrackLog", "TrackScore", "judge_tracks", "score_tracks"]

MATCH = 0.5
"""Mask IoU from which a track covers a thing."""


@dataclass(slots=True)
class TrackLog:
    """One video's true ids, track ids and overlaps, frame by frame."""

    true_ids: list[NDArray[np.int64]] = field(default_factory=list)
    """Per frame (G,) ids of the things that must be found."""
    track_ids: list[NDArray[np.int64]] = field(default_factory=list)
    """Per frame (N,) ids of the confirmed tracks."""
    overlaps: list[NDArray[np.float64]] = field(default_factory=list)
    """Per frame (G, N) mask IoU; 0 between different classes."""

    def add(self, truth: AnnotatedImage, found: Instances) -> None:
        """Add the next frame's truth and its tracked things; prompt ids are class ids.

        Tracks of a thing that is visible too little to be asked for count neither way.

        Raises:
            ValueError: nothing was tracked.
        """
        if found.track_ids is None:
            raise ValueError("the regions have no track ids")
        asked = [r for r in truth.instances if not r.stuff]
        regions = [*asked, *(r for r in truth.ignored if not r.stuff)]  # (R,): asked first
        masks = [crop(truth.instance_map == r.id) for r in regions]
        keep = np.flatnonzero(found.track_ids > 0)
        found_masks = found.masks_for("judging tracks")
        overlap = iou_matrix(masks, [found_masks[k] for k in keep]).astype(np.float64)  # (R, N)
        classes = np.array([r.class_id for r in regions], np.int64)
        overlap[classes[:, None] != found.prompt_ids[keep][None]] = 0
        # (N,): tracks that cover what need not be found; they are left out.
        ignored = overlap[len(asked) :].max(axis=0, initial=0.0) >= MATCH
        self.true_ids.append(np.array([r.id for r in asked], np.int64))
        self.track_ids.append(found.track_ids[keep][~ignored])
        self.overlaps.append(overlap[: len(asked), ~ignored])


@dataclass(frozen=True, slots=True)
class TrackScore:
    """How well things kept their identities, over all videos."""

    mota: float
    """Multiple object tracking accuracy (CLEAR), at most 1."""
    idf1: float
    """F1 of the identities, 0..1."""
    switches: int
    """How often a thing changed its track."""


def score_tracks(logs: Sequence[TrackLog]) -> TrackScore:
    """Judge the tracks of several videos together.

    Raises:
        PluginError: the extra that holds the metrics is not installed.
    """
    metrics = library("trackers.eval", "trackers")
    clear: list[dict[str, Any]] = []
    identity: list[dict[str, Any]] = []
    for log in logs:
        given = log.true_ids, log.track_ids, log.overlaps
        clear.append(metrics.compute_clear_metrics(*given, threshold=MATCH))
        identity.append(metrics.compute_identity_metrics(*given, threshold=MATCH))
    total = metrics.aggregate_clear_metrics(clear)
    return TrackScore(
        mota=float(total["MOTA"]),
        idf1=float(metrics.aggregate_identity_metrics(identity)["IDF1"]),
        switches=int(total["IDSW"]),
    )


def judge_tracks(
    model: TimedPerceiver, world: World, plan: EvaluationPlan, tracker: Callable[[], Tracker]
) -> Report:
    """Videos of moving things, every thing's name asked for in every frame."""
    if plan.videos == 0:
        return {}
    model.prepare(name_prompts(world.names[: world.things], None, world.things))
    logs = []
    for k in range(plan.videos):
        video = world.video(plan.seed + k, plan.size(k), fps=plan.fps)
        # A tracker for each video: a track must not go on from one into the next.
        log, follow = TrackLog(), tracker()
        for index in range(plan.frames):
            truth = video.scene(index)
            (found,) = model.perceive([truth])
            with model.timed("track"):
                tracked = follow.update(found, index / plan.fps)
            log.add(truth, tracked)
        logs.append(log)
    score = score_tracks(logs)
    return {
        "track_mota": score.mota,
        "track_idf1": score.idf1,
        "track_switches": score.switches,
        "videos": plan.videos,
        "video_frames": plan.frames,
    }
