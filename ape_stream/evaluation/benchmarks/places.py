"""Where the data sets of a task lie on this machine, and what of them is missing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ape_stream.errors import UsageError

if TYPE_CHECKING:
    from ape_stream.evaluation.benchmarks.task import Task

__all__ = ["Missing", "Places", "root_of"]

ROOT_VARIABLE = "DETECTRON2_DATASETS"
"""The variable that detectron2 and the official code read; both fall back on `datasets`."""


def root_of(given: Path | None) -> Path:
    """The folder of all data sets: the given one, else that of the official code."""
    return given or Path(os.environ.get(ROOT_VARIABLE, "datasets"))


@dataclass(frozen=True, slots=True)
class Missing:
    """A file or folder that a task needs and that is not there."""

    task: str
    """Name of the task."""
    what: str
    """What it holds: "annotations", "images", ..."""
    path: Path
    """Where it is looked for."""
    get: str
    """Where it can be downloaded."""

    def __str__(self) -> str:
        """One line."""
        source = f" (download: {self.get})" if self.get else ""
        return f"{self.task}: no {self.what} at {self.path}{source}"


@dataclass(frozen=True, slots=True)
class Places:
    """The files of a task below a root."""

    root: Path
    """The folder of all data sets."""
    task: Task
    """The task, in the profile that is asked for."""

    def path(self, what: str) -> Path:
        """Where something lies.

        Raises:
            UsageError: it is not there; the message says where it can be downloaded.
        """
        path = self.root / self.task.paths[what]
        if not path.exists():
            raise UsageError(str(Missing(self.task.name, what, path, self.task.get)))
        return path

    def missing(self) -> list[Missing]:
        """What is not there."""
        paths = {what: self.root / path for what, path in self.task.paths.items()}
        return [
            Missing(self.task.name, what, path, self.task.get)
            for what, path in paths.items()
            if not path.exists()
        ]
