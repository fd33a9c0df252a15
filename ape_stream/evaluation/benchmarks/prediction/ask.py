"""What a perceiver is asked on an image, and what of its answer is kept."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from ape_stream.errors import ConfigError
from ape_stream.evaluation.benchmarks.prediction.payload import FoundLabels, FoundSegments
from ape_stream.evaluation.benchmarks.scoring.panoptic import Segment
from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions, MaskCodes
from ape_stream.masks import encode_rle
from ape_stream.protocols import PaintsMaps, RanksRegions
from ape_stream.types import Prompt, PromptKind, PromptSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.prediction.payload import Prediction
    from ape_stream.evaluation.benchmarks.readers.dataset import Dataset, Record
    from ape_stream.protocols import Perceiver
    from ape_stream.types import Frame, Instances, MapKind, Maps

__all__ = ["Asker", "needs_masks"]


def needs_masks(dataset: Dataset) -> bool:
    """Whether masks of regions are scored."""
    task = dataset.task
    return "mask" in task.kinds or task.scorer in {"referring", "phrasecut"}


class Asker:
    """Asks one perceiver about the images of one task.

    Args:
        perceiver: The model.
        dataset: The task.
    """

    def __init__(self, perceiver: Perceiver, dataset: Dataset) -> None:
        self._perceiver = perceiver
        self._dataset = dataset
        self._prepared: tuple[int, ...] | None = None
        self._positions: list[list[int]] = []
        self._all = tuple(range(len(dataset.prompts)))

    def predict(self, record: Record, frame: Frame) -> Prediction:
        """What is found in one image.

        Raises:
            ConfigError: the perceiver makes no maps, and maps are scored.
        """
        self._prepare(record)
        scorer = self._dataset.task.scorer
        if scorer in {"semantic", "panoptic"}:
            maps = self._maps(frame)
            return self._labels(maps) if scorer == "semantic" else self._segments(maps)
        return self._regions(record, self._ranked(frame))

    def _prepare(self, record: Record) -> None:
        """Have the perceiver look for what is asked in this image."""
        asked = self._all if record.asked is None else record.asked
        if asked == self._prepared:
            return
        by_text: dict[str, list[int]] = defaultdict(list)
        prompts = {}
        for position in asked:
            prompt = Prompt(self._dataset.prompts[position], kind=self._kind(), threshold=0.0)
            by_text[prompt.text].append(position)
            prompts[prompt.text] = prompt
        self._perceiver.prepare(PromptSet(tuple(prompts.values())))
        # Some data sets call two classes the same: both get what is found for the word.
        self._positions = list(by_text.values())
        self._prepared = asked

    def _kind(self) -> PromptKind:
        task = self._dataset.task
        fused = task.fused or task.mode != "name"
        return PromptKind.SENTENCE if fused else PromptKind.VOCABULARY

    def _ranked(self, frame: Frame) -> Instances:
        if isinstance(self._perceiver, RanksRegions):
            [found] = self._perceiver.rank([frame], self._dataset.task.top_k)
        else:
            [found] = self._perceiver.perceive([frame])
        return found

    def _maps(self, frame: Frame) -> Maps:
        if not isinstance(self._perceiver, PaintsMaps):
            name = type(self._perceiver).__name__
            raise ConfigError(f"{name} makes no maps, so {self._dataset.task.name} cannot be run")
        wanted: MapKind = "semantic" if self._dataset.task.scorer == "semantic" else "panoptic"
        [(_, maps)] = self._perceiver.perceive_with_maps([frame], frozenset({wanted}))
        return maps

    def _regions(self, record: Record, found: Instances) -> FoundRegions:
        rows = [
            (index, position)
            for index, prompt_id in enumerate(found.prompt_ids.tolist())
            for position in self._positions[prompt_id]
        ]
        index, positions = np.array(rows, np.int64).reshape(-1, 2).T
        order = np.argsort(-found.scores[index], kind="stable")[: self._dataset.task.top_k]
        kept = index[order]
        masks = None
        if needs_masks(self._dataset) and (found.masks is not None or not self._has_boxes()):
            own = found.masks_for(f"task {self._dataset.task.name}")
            masks = MaskCodes.of([encode_rle(own[k], found.size) for k in kept.tolist()])
        return FoundRegions(
            image_ids=np.full(len(kept), record.image_id, np.int64),
            class_ids=self._dataset.classes.ids[positions[order]].astype(np.int32),
            xywh=_xywh(found.boxes[kept]),
            scores=found.scores[kept],
            masks=masks,
        )

    def _has_boxes(self) -> bool:
        """Whether boxes are scored too, so that a model of boxes alone has figures."""
        task = self._dataset.task
        return task.scorer == "referring" or (task.scorer != "phrasecut" and "box" in task.kinds)

    def _labels(self, maps: Maps) -> FoundLabels:
        assert maps.semantic is not None  # noqa: S101 (it was asked for)
        # The first class of a word gets its pixels.
        table = np.array([0, *(own[0] + 1 for own in self._positions)], np.uint16)
        return FoundLabels(table[maps.semantic.ids])

    def _segments(self, maps: Maps) -> FoundSegments:
        assert maps.panoptic is not None  # noqa: S101 (the same)
        ids = self._dataset.classes.ids
        segments = tuple(
            Segment(one.id, int(ids[self._positions[one.prompt_id][0]]))
            for one in maps.panoptic.segments
        )
        return FoundSegments(maps.panoptic.ids, segments)


def _xywh(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 4) left, top, width, height of (N, 4) corners."""
    corners = boxes.astype(np.float64)
    corners[:, 2:] -= corners[:, :2]
    return corners.astype(np.float32)
