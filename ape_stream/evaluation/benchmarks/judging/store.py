"""Predictions of a folder, read from its shards and checked against this machine's annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ape_stream.batch.folder import OutFolder
from ape_stream.batch.plan import differences
from ape_stream.errors import ConfigError, WireError
from ape_stream.evaluation.benchmarks.places import Places
from ape_stream.evaluation.benchmarks.prediction.job import PART_IMAGES
from ape_stream.evaluation.benchmarks.prediction.manifest import (
    Manifest,
    annotation_digests,
    describe,
)
from ape_stream.evaluation.benchmarks.prediction.payload import unpack
from ape_stream.evaluation.benchmarks.prediction.run import parts_in
from ape_stream.evaluation.benchmarks.readers import read
from ape_stream.evaluation.benchmarks.registry import all_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ape_stream.batch.clips import Clip
    from ape_stream.evaluation.benchmarks.prediction.manifest import Predicted
    from ape_stream.evaluation.benchmarks.prediction.payload import Prediction
    from ape_stream.evaluation.benchmarks.readers.dataset import Dataset, Record
    from ape_stream.evaluation.benchmarks.task import Profile, Task

__all__ = ["Store", "Stored"]


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """The predictions of one task, and its truth."""

    data: Dataset
    """The task as it is read here."""
    places: Places
    """Where its files lie here."""
    out: OutFolder
    """Where the predictions are."""
    clips: list[Clip]
    """The parts that they are kept in."""
    predicted: Predicted
    """What they depend on."""

    @property
    def records(self) -> tuple[Record, ...]:
        """The images that were predicted."""
        return self.data.records[: self.predicted.images]

    @property
    def is_limited(self) -> bool:
        """Whether some images were left out: the figures are no real ones."""
        return self.predicted.images < self.predicted.of

    def parts(self) -> Iterator[list[tuple[Record, Prediction]]]:
        """The predictions, part by part, in the order of the records.

        Raises:
            ConfigError: a part is damaged.
        """
        for k, clip in enumerate(self.clips):
            records = self.records[k * PART_IMAGES : (k + 1) * PART_IMAGES]
            try:
                payloads = self.out.shards(clip).payloads(0)
                pairs = zip(records, payloads, strict=True)
                yield [(record, unpack(data, record.image_id)) for record, data in pairs]
            except (OSError, ValueError, WireError) as error:
                raise ConfigError(f"{clip.name} in {self.out.root} is damaged: {error}") from error


class Store:
    """The predictions of a folder.

    Args:
        out: The folder.
        root: The folder of all data sets.

    Raises:
        ConfigError: there is no manifest.
    """

    def __init__(self, out: Path, root: Path) -> None:
        manifest = Manifest.load(out)
        if manifest is None:
            raise ConfigError(f"{out} holds no predictions: make some with `ape-stream eval run`")
        self.manifest: Manifest = manifest
        """What the predictions depend on."""
        self._out = OutFolder(out)
        self._root = root

    def tasks(self) -> list[Task]:
        """The tasks that can be scored from what is kept, in the order of the registry."""
        kept = self.manifest.predictions
        return [task for task in all_tasks().values() if task.predicted_as in kept]

    def missing(self, task: Task) -> int:
        """Images of a task that are not predicted yet."""
        clips = parts_in(self.manifest, task.predicted_as)
        open_parts = [k for k, clip in enumerate(clips) if self._out.shards(clip).last() is None]
        images = self.manifest.predictions[task.predicted_as].images
        return sum(min(PART_IMAGES, images - k * PART_IMAGES) for k in open_parts)

    def open(self, task: Task) -> Stored:
        """The predictions and the truth of a task.

        Args:
            task: Without a profile: that of the predictions is taken.

        Raises:
            ConfigError: there are no predictions, some are missing, or they were made for other
                prompts or annotations than those of this machine.
            UsageError: files of the task are missing here.
        """
        if task.predicted_as not in self.manifest.predictions:
            raise ConfigError(f"{self._out.root} holds no predictions for {task.name}")
        if missing := self.missing(task):
            raise ConfigError(
                f"{task.name}: {missing} images are not predicted yet: run the same command again"
            )
        own = task.with_profile(cast("Profile", self.manifest.profile))
        places = Places(self._root, own)
        data, predicted = read(places), self.manifest.predictions[task.predicted_as]
        self._refuse_others(data, places, predicted)
        return Stored(
            data, places, self._out, parts_in(self.manifest, task.predicted_as), predicted
        )

    def _refuse_others(self, data: Dataset, places: Places, predicted: Predicted) -> None:
        """Refuse predictions that belong to other prompts or annotations."""
        here = describe(data, places, self.manifest.limit)
        # Tasks that share predictions differ in the file of their truth alone.
        shared = data.task.name != predicted.task
        digests = annotation_digests(places)
        then: dict[str, Any] = {
            "prompts": predicted.prompts,
            "images": predicted.images,
            "annotations": {
                what: digest
                for what, digest in predicted.annotations.items()
                if not (shared and what == "annotations")
            },
        }
        now = {
            "prompts": here.prompts,
            "images": here.images,
            "annotations": {what: digests.get(what) for what in then["annotations"]},
        }
        if lines := differences(then, now):
            raise ConfigError(
                f"the predictions for {data.task.name} in {self._out.root} were made for other"
                f" data ({'; '.join(lines)})"
            )
