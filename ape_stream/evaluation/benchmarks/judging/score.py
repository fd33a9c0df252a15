"""Figures of a task, of a group, of a folder: `scores.json`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.batch.folder import json_bytes
from ape_stream.batch.shards import write_whole
from ape_stream.errors import ConfigError
from ape_stream.evaluation.benchmarks.prediction.payload import FoundLabels, FoundSegments
from ape_stream.evaluation.benchmarks.readers.dataset import PanopticData, RegionData, SemanticData
from ape_stream.evaluation.benchmarks.readers.openimages import class_tree
from ape_stream.evaluation.benchmarks.registry import groups
from ape_stream.evaluation.benchmarks.scoring import (
    cityscapes,
    coco,
    lvis,
    openimages,
    phrasecut,
    phrases,
    referring,
    semantic,
    suites,
)
from ape_stream.evaluation.benchmarks.scoring.panoptic import PanopticScorer
from ape_stream.evaluation.benchmarks.scoring.records import (
    Federation,
    FoundRegions,
    Images,
    RegionTruth,
    Scores,
)
from ape_stream.evaluation.semantic import Confusion

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.judging.store import Store, Stored
    from ape_stream.evaluation.benchmarks.readers.dataset import Record
    from ape_stream.evaluation.benchmarks.scoring.engine import Kind
    from ape_stream.evaluation.benchmarks.task import Task

__all__ = [
    "NOT_REAL",
    "SUITES",
    "found_regions",
    "score",
    "suite_scores",
    "truth_of",
    "write_scores",
]

NOT_REAL: Final = "NOT A REAL FIGURE: only the first {} of {} images"
BOXES_ONLY: Final = "no figures of masks: the model gives boxes only"
_SCORED_BY_KIND: Final = ("coco", "lvis", "referring")
SUITES: Final = {
    "odinw13": "box/AP",
    "odinw35": "box/AP",
    "rf100": "box/AP",
    "seginw": "mask/AP",
}
"""Groups whose figure is the mean over their data sets, and which figure of theirs."""


def score(stored: Stored) -> Scores:
    """The figures of a task.

    Raises:
        ConfigError: predictions are damaged, or of another kind than the task's.
    """
    data = stored.data
    if isinstance(data, SemanticData):
        scores = _semantic(data, stored)
    elif isinstance(data, PanopticData):
        scores = _panoptic(data, stored)
    else:
        assert isinstance(data, RegionData)  # noqa: S101 (the third kind)
        scores = _regions(data, stored)
    if not stored.is_limited:
        return scores
    note = NOT_REAL.format(stored.predicted.images, stored.predicted.of)
    return replace(scores, notes=(note, *scores.notes))


def _semantic(data: SemanticData, stored: Stored) -> Scores:
    confusion = Confusion(len(data.prompts))
    for part in stored.parts():
        for record, found in part:
            if not isinstance(found, FoundLabels):
                raise _of_another_kind(data.task.name)
            confusion.add(_same_size(data.labels(record), found.ids, record), found.ids)
    return semantic.score(confusion, data.classes.names)


def _panoptic(data: PanopticData, stored: Stored) -> Scores:
    scorer = PanopticScorer(data.classes, data.things)
    for part in stored.parts():
        for record, found in part:
            if not isinstance(found, FoundSegments):
                raise _of_another_kind(data.task.name)
            ids, segments = data.segments(record)
            truth = _same_size(ids, found.ids, record)
            scorer.add(truth, segments, found.ids, list(found.segments))
    return scorer.scores()


def _of_another_kind(task: str) -> ConfigError:
    return ConfigError(f"{task}: its predictions are of another kind")


def _same_size(
    truth: NDArray[np.int64], found: NDArray[np.uint16], record: Record
) -> NDArray[np.int64]:
    if truth.shape != found.shape:
        raise ConfigError(
            f"{record.path} is {found.shape} pixels high and wide, its annotation {truth.shape}"
        )
    return truth


def found_regions(stored: Stored, truth: RegionTruth | None = None) -> FoundRegions:
    """The predicted regions of a task.

    Args:
        stored: Its predictions.
        truth: Where given, what cannot count for the task's score is left out part by part, so that
            the predictions for all of LVIS fit into memory.

    Raises:
        ConfigError: predictions are damaged, or of another kind than the task's.
    """
    parts = []
    for part in stored.parts():
        own = [found for _, found in part if isinstance(found, FoundRegions)]
        if len(own) != len(part):
            raise _of_another_kind(stored.data.task.name)
        joined = FoundRegions.join(own)
        if truth is not None and stored.data.task.scorer == "lvis":
            joined = lvis.judged(truth, joined, stored.data.task.detections)
        parts.append(joined)
    return FoundRegions.join(parts)


def truth_of(data: RegionData, stored: Stored) -> RegionTruth:
    """The truth for the images that were predicted."""
    truth = data.truth()
    if not stored.is_limited:
        return truth
    ids = np.array([record.image_id for record in stored.records], np.int64)
    kept = np.isin(truth.images.ids, ids)
    federation = truth.federation
    if federation is not None:
        federation = Federation(
            *(
                pairs[np.isin(pairs[:, 0], ids)]
                for pairs in (
                    federation.negative,
                    federation.not_exhaustive,
                    federation.positive,
                )
            )
        )
    return RegionTruth(
        Images(truth.images.ids[kept], truth.images.sizes[kept]),
        truth.classes,
        truth.regions.select(np.isin(truth.regions.image_ids, ids)),
        federation,
    )


def _regions(data: RegionData, stored: Stored) -> Scores:
    task, truth = data.task, truth_of(data, stored)
    found = found_regions(stored, truth)
    options = task.options
    if task.scorer in _SCORED_BY_KIND:
        return _by_kind(task, truth, found)
    if task.scorer == "cityscapes":
        return cityscapes.score(truth, found)
    if task.scorer == "openimages":
        return openimages.score(truth, found, class_tree(stored.places), options["groups"])
    if task.scorer == "phrasecut":
        kept = found.select(found.scores >= options["threshold"])
        return phrasecut.score(truth, kept)
    return phrases.score(truth, found, options.get("protocol", "any"))


def _by_kind(task: Task, truth: RegionTruth, found: FoundRegions) -> Scores:
    """The figures of boxes and of masks, or of boxes alone where the model gives no masks."""
    kinds: tuple[Kind, ...] = ("box", "mask") if task.scorer == "referring" else task.kinds
    no_masks = found.masks is None and "mask" in kinds
    if no_masks:
        kinds = ("box",)
    if task.scorer == "referring":
        at_least = not task.options.get("strict", False)
        scores = referring.score(truth, found, kinds, at_least=at_least)
    else:
        scorer = coco.score if task.scorer == "coco" else lvis.score
        scores = scorer(truth, found, kinds, task.detections)
    return replace(scores, notes=(*scores.notes, BOXES_ONLY)) if no_masks else scores


def suite_scores(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """The figures of the suites whose data sets are all scored."""
    members = groups()
    whole = {name: members[name] for name in SUITES if scores.keys() >= set(members[name])}
    return {
        name: suites.summarise({task: scores[task] for task in tasks}, SUITES[name])
        for name, tasks in whole.items()
    }


def write_scores(out: Path, store: Store, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Write `scores.json`, and return what it holds.

    Raises:
        SinkError: it cannot be written.
    """
    manifest = store.manifest
    table = {
        "model": manifest.name,
        "made_by": manifest.model,
        "profile": manifest.profile,
        "limit": manifest.limit,
        "version": manifest.version,
        "tasks": {name: _values(one) for name, one in scores.items()},
        "suites": {name: _values(one) for name, one in suite_scores(scores).items()},
    }
    write_whole(out / "scores.json", json_bytes(table, indent=1))
    return table


def _values(scores: Scores) -> dict[str, Any]:
    return {"figures": scores.figures, "by_class": scores.by_class, "notes": scores.notes}
