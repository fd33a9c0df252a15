"""A perceiver that answers with the annotations: what a perfect model would score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ape_stream.errors import ConfigError
from ape_stream.evaluation.benchmarks.prediction.source import open_task
from ape_stream.evaluation.benchmarks.readers.dataset import (
    NO_CLASS,
    Dataset,
    PanopticData,
    RegionData,
    SemanticData,
)
from ape_stream.evaluation.benchmarks.registry import all_tasks
from ape_stream.masks import decode_rle
from ape_stream.types import Instances, Maps, Mask, PanopticMap, Segment, SemanticMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.readers.dataset import Record
    from ape_stream.types import Frame, MapKind, PromptSet

__all__ = ["TruthPerceiver"]


class TruthPerceiver:
    """Answers from the annotations of the task that a frame belongs to.

    It finds faults of a data set, or of what is done with predictions, before a model does: every
    figure must be 100.

    Args:
        root: The folder of all data sets.
        profile: "official" or "honest", as for the run.
    """

    def __init__(self, *, root: str, profile: str = "honest") -> None:
        self._root = root
        self._profile = profile
        self._texts: dict[str, int] = {}
        self._by_image: tuple[RegionData, dict[int, NDArray[np.intp]]] | None = None

    def prepare(self, prompts: PromptSet) -> None:
        """Take the prompts."""
        self._texts = {text: position for position, text in enumerate(prompts.texts)}

    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        """The annotated regions of each frame, without those that stand for many."""
        return [self._regions(frame) for frame in frames]

    def rank(self, frames: Sequence[Frame], top_k: int) -> list[Instances]:
        """See `RanksRegions`."""
        return [found.select(np.arange(len(found))[:top_k]) for found in self.perceive(frames)]

    def perceive_with_maps(
        self, frames: Sequence[Frame], wanted: frozenset[MapKind]
    ) -> list[tuple[Instances, Maps]]:
        """The annotated maps of each frame."""
        answers = []
        for frame in frames:
            data, record = self._of(frame)
            semantic = panoptic = None
            if "semantic" in wanted and isinstance(data, SemanticData):
                semantic = self._semantic(data, record)
            if "panoptic" in wanted and isinstance(data, PanopticData):
                panoptic = self._panoptic(data, record)
            answers.append((Instances.empty(frame.size), Maps(semantic, panoptic)))
        return answers

    def _of(self, frame: Frame) -> tuple[Dataset, Record]:
        name = frame.stream.rpartition("/")[0]
        tasks = [task.name for task in all_tasks().values() if task.predicted_as == name]
        if not tasks:
            raise ConfigError(f"stream {frame.stream!r} is no part of a task: only `eval run` is")
        data = open_task(tasks[0], self._root, self._profile)
        return data, data.records[frame.index]

    def _prompt_of(self, data: Dataset) -> NDArray[np.int64]:
        """(C,) position of each class among the prompts; -1 where it is not asked for."""
        texts = (" ".join(text.split()) for text in data.prompts)
        return np.array([self._texts.get(text, -1) for text in texts], np.int64)

    def _regions(self, frame: Frame) -> Instances:
        data, record = self._of(frame)
        if not isinstance(data, RegionData):
            return Instances.empty(frame.size)
        regions = data.truth().regions
        rows = self._rows(data).get(record.image_id, np.zeros(0, np.intp))
        order = np.argsort(data.classes.ids)
        positions = order[np.searchsorted(data.classes.ids[order], regions.class_ids[rows])]
        prompts = self._prompt_of(data)[positions]
        rows, prompts = rows[prompts >= 0], prompts[prompts >= 0]
        xywh = regions.xywh[rows]
        whole = Mask(np.ones(frame.size, np.bool_))
        masks = [
            whole if regions.masks is None else decode_rle(regions.masks[int(row)]) for row in rows
        ]
        return Instances(
            boxes=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).astype(np.float32),
            scores=np.ones(len(rows), np.float32),
            prompt_ids=prompts,
            masks=tuple(masks),
            size=frame.size,
        )

    def _rows(self, data: RegionData) -> dict[int, NDArray[np.intp]]:
        """Positions of the regions of each image, without crowds of COCO."""
        if self._by_image is None or self._by_image[0] is not data:
            regions = data.truth().regions
            keep = np.flatnonzero(~regions.groups | (data.task.scorer == "openimages"))
            ids = regions.image_ids[keep]
            order = np.argsort(ids, kind="stable")
            values, first = np.unique(ids[order], return_index=True)
            groups = np.split(keep[order], first[1:])
            self._by_image = data, dict(zip(values.tolist(), groups, strict=True))
        return self._by_image[1]

    def _semantic(self, data: SemanticData, record: Record) -> SemanticMap:
        labels = data.labels(record)
        table = np.append(self._prompt_of(data) + 1, 0).astype(np.uint16)
        return SemanticMap(table[np.where(labels == NO_CLASS, len(table) - 1, labels)])

    def _panoptic(self, data: PanopticData, record: Record) -> PanopticMap:
        ids, segments = data.segments(record)
        prompts = dict(zip(data.classes.ids.tolist(), self._prompt_of(data).tolist(), strict=True))
        things = dict(zip(data.classes.ids.tolist(), data.things.tolist(), strict=True))
        found = np.zeros(ids.shape, np.uint16)
        table: list[Segment] = []
        for one in segments:
            mask = ids == one.id
            if one.crowd or prompts[one.class_id] < 0 or not mask.any():
                continue
            key, area = len(table) + 1, int(mask.sum())
            found[mask] = key
            table.append(Segment(key, prompts[one.class_id], things[one.class_id], 1.0, area))
        return PanopticMap(found, tuple(table), (False,) * len(self._texts))
