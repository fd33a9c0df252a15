"""Miniatures of all tasks, and runs whose workers live in the process of the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from in_process import without_processes

from ape_stream.evaluation.benchmarks.miniature import write_miniatures
from ape_stream.evaluation.benchmarks.registry import all_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGES = 2


@pytest.fixture(autouse=True)
def _in_process() -> Iterator[None]:
    with without_processes():
        yield


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniatures of all tasks."""
    folder = tmp_path_factory.mktemp("benchmarks") / "data"
    write_miniatures(all_tasks().values(), folder, IMAGES)
    return folder
