"""Miniatures of all tasks, and runs whose workers live in the process of the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import pytest

from ape_stream.batch.job import Event
from ape_stream.batch.worker import Worker
from ape_stream.evaluation.benchmarks.miniature import write_miniatures
from ape_stream.evaluation.benchmarks.prediction import run as prediction_run
from ape_stream.evaluation.benchmarks.registry import all_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ape_stream.batch.job import Setup, Task

IMAGES = 2


class _InlinePool:
    """Workers in this process: the same code, without the start of a process."""

    def __init__(self, slots: Sequence[str], setup: Setup, post: Callable[[Event], None]) -> None:
        self.slots = tuple(slots)
        self._worker, self._post = Worker(setup), post

    def send(self, slot: str, task: Task) -> None:
        def emit(kind: str, value: Any = None, *, retry: bool = False) -> None:
            self._post(Event(slot, task.number, kind, value, retry))

        self._worker.run(task, emit)

    def kill(self, _slot: str) -> None:
        raise AssertionError("a worker gave no sign of life")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_run, "ProcessPool", _InlinePool)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniatures of all tasks."""
    folder = tmp_path_factory.mktemp("benchmarks") / "data"
    write_miniatures(all_tasks().values(), folder, IMAGES)
    return folder
