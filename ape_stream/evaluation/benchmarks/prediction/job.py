"""Prediction as a job of `ape_stream.batch`: a clip is a part of a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ape_stream.batch.clips import Clip
from ape_stream.evaluation.benchmarks.prediction.ask import Asker
from ape_stream.evaluation.benchmarks.prediction.payload import pack
from ape_stream.evaluation.benchmarks.prediction.source import address, open_task
from ape_stream.files import sampled_digest
from ape_stream.plugins import load, make
from ape_stream.protocols import KnowsWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ape_stream.batch.job import ClipResults
    from ape_stream.protocols import Perceiver
    from ape_stream.types import Frame

__all__ = ["ADDRESS", "PART_IMAGES", "PredictJob", "parts_of"]

ADDRESS = "ape_stream.evaluation.benchmarks.prediction.job:PredictJob"
"""What workers make the job of; see `ape_stream.batch.job`."""
PART_IMAGES = 128
"""Images of a part, which is one shard: what a kill can cost, at most."""


def parts_of(predicted_as: str, task: str, images: int, digest: str) -> list[Clip]:
    """The parts of a task, as clips.

    Args:
        predicted_as: Name of its predictions.
        task: Name of the task that is read for them.
        images: How many it has.
        digest: Of what its predictions depend on.
    """
    starts = range(0, images, PART_IMAGES)
    return [
        Clip(
            name=f"{predicted_as}/{first // PART_IMAGES:05d}",
            source=address(task, first, min(first + PART_IMAGES, images)),
            size=0,
            digest=digest,
        )
        for first in starts
    ]


class PredictJob:
    """Asks a model about the images of tasks; see `Job`.

    Args:
        model: Plugin and options of the perceiver.
        tasks: For each name of predictions, the task that is read.
        root: The folder of all data sets.
        profile: "official" or "honest".
    """

    batch = 1

    def __init__(
        self, *, model: dict[str, Any], tasks: dict[str, str], root: str, profile: str
    ) -> None:
        self._model = model
        self._tasks = tasks
        self._root = root
        self._profile = profile
        self._perceiver: Perceiver | None = None
        self._asked: tuple[str, Asker] | None = None

    def identity(self) -> dict[str, Any]:
        """The digest of the model's weights, where its plugin names their files."""
        factory = load("perceivers", self._model["plugin"])
        if not isinstance(factory, KnowsWeights):
            return {}
        return {"weights": sampled_digest(map(Path, factory.weights(**self._model["options"])))}

    def load(self) -> None:
        """Load the model."""
        plugin, options = self._model["plugin"], self._model["options"]
        self._perceiver = make("perceivers", plugin, options=options)

    def describe(self, frames: Sequence[Frame]) -> list[bytes]:
        """The prediction for each image."""
        found = []
        for frame in frames:
            task = self._tasks[frame.stream.rpartition("/")[0]]
            records = open_task(task, self._root, self._profile).records
            found.append(pack(self._asker(task).predict(records[frame.index], frame)))
        return found

    def _asker(self, task: str) -> Asker:
        if self._asked is None or self._asked[0] != task:
            assert self._perceiver is not None  # noqa: S101 (`load` comes first)
            dataset = open_task(task, self._root, self._profile)
            self._asked = task, Asker(self._perceiver, dataset)
        return self._asked[1]

    def finish(
        self, results: ClipResults, progress: Callable[[int], None]
    ) -> tuple[dict[str, Any], list[Path]]:
        """Nothing is left to write: scores are made from the shards."""
        images = int(results.end["frames"])
        progress(images)
        return {"images": images, "problem": results.end["problem"]}, []
