"""Is a data set whole? Found out before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ape_stream.errors import ApeStreamError
from ape_stream.evaluation.benchmarks.places import Missing, Places
from ape_stream.evaluation.benchmarks.readers import read
from ape_stream.evaluation.benchmarks.readers.dataset import PanopticData, SemanticData

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ape_stream.evaluation.benchmarks.readers.dataset import Dataset, Record
    from ape_stream.evaluation.benchmarks.task import Profile, Task

__all__ = ["Found", "check"]


@dataclass(slots=True)
class Found:
    """What is known about the files of a task."""

    task: str
    """Its name."""
    images: int = 0
    """How many it has."""
    classes: int = 0
    """How many can be asked for."""
    problems: list[str] = field(default_factory=list)
    """What is wrong, a line each; none where the task can be run."""
    missing: list[Missing] = field(default_factory=list)
    """Files and folders that are not there."""


def check(task: Task, root: Path, profile: Profile) -> Found:
    """Look at the files of a task: those that it names, and its images, three of them in full."""
    places = Places(root, task.with_profile(profile))
    found = Found(task.name, missing=places.missing())
    found.problems = [str(one) for one in found.missing]
    if found.problems:
        return found
    try:
        data = read(places)
        found.images, found.classes = len(data.records), len(data.prompts)
        found.problems += _missing_images(data)
        if not found.problems:
            _look(data)
    except ApeStreamError as error:
        found.problems.append(str(error))
    return found


def _missing_images(data: Dataset) -> list[str]:
    gone = [record.path for record in data.records if not record.path.exists()]
    if not gone:
        return []
    return [f"{len(gone)} of {len(data.records)} images are not there, the first is {gone[0]}"]


def _look(data: Dataset) -> None:
    """Read a few images, and their labels.

    Raises:
        ApeStreamError: one cannot be read.
    """
    for record in _spread(data.records):
        data.load(record)
        if isinstance(data, SemanticData):
            data.labels(record)
        elif isinstance(data, PanopticData):
            data.segments(record)


def _spread(records: Sequence[Record]) -> list[Record]:
    """The first record, the one in the middle, and the last."""
    last = len(records) - 1
    return [records[k] for k in sorted({0, last // 2, last})] if records else []
