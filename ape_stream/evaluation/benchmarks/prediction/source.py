"""The images of a task as a source of frames: `benchmark://lvis/val?first=128&stop=256`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ape_stream.closing import Closing
from ape_stream.errors import SourceError, UsageError
from ape_stream.evaluation.benchmarks.places import Places
from ape_stream.evaluation.benchmarks.readers import read
from ape_stream.evaluation.benchmarks.registry import all_tasks
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ape_stream.evaluation.benchmarks.readers.dataset import Dataset
    from ape_stream.evaluation.benchmarks.task import Profile

__all__ = ["BenchmarkSource", "address", "open_task"]


@lru_cache(maxsize=1)  # the parts of a task come one after the other
def open_task(name: str, root: str, profile: str) -> Dataset:
    """A task's data, kept until another task is opened.

    Raises:
        UsageError: there is no such task, or files of it are missing.
        SourceError: a file of it cannot be read.
    """
    if name not in all_tasks():
        raise UsageError(f"no task is called {name!r} (ape-stream eval list)")
    task = all_tasks()[name].with_profile(cast("Profile", profile))
    return read(Places(Path(root), task))


def address(task: str, first: int, stop: int) -> str:
    """What opens the images of a task from one position to before another."""
    return f"benchmark://{quote(task)}?first={first}&stop={stop}"


class BenchmarkSource(Closing):
    """Some images of a task; a frame's index is the position of its record.

    Args:
        spec: See `address`.
        name: Of the stream.
        root: The folder of all data sets.
        profile: "official" or "honest".
    """

    live = False

    def __init__(self, spec: str, *, name: str, root: str, profile: str = "honest") -> None:
        self.name = name
        parts = urlsplit(spec)
        self._task = unquote(parts.netloc + parts.path)
        query = parse_qs(parts.query)
        try:
            self._first, self._stop = (int(query[key][0]) for key in ("first", "stop"))
        except (KeyError, ValueError) as error:
            raise UsageError(f"{spec} names no range: write ?first=0&stop=100") from error
        self._root, self._profile = root, profile
        self._wanted: Callable[[int, float], bool] = lambda _index, _time_s: True

    @property
    def frame_count(self) -> int:
        """How many images the range has."""
        return self._stop - self._first

    def keep(self, wanted: Callable[[int, float], bool]) -> None:
        """See `SkipsFrames`."""
        self._wanted = wanted

    def __enter__(self) -> Self:
        """Nothing is opened before an image is read."""
        return self

    def close(self, _: BaseException | None = None, /) -> None:
        """Nothing is open."""

    def __iter__(self) -> Iterator[Frame]:
        """Read image by image.

        Raises:
            SourceError: one cannot be read: a task without it would have another score.
        """
        dataset = open_task(self._task, self._root, self._profile)
        if self._stop > len(dataset.records):
            raise SourceError(f"{self._task} has {len(dataset.records)} images, not {self._stop}")
        for index in range(self._first, self._stop):
            record = dataset.records[index]
            if self._wanted(index, float(index)):
                image = dataset.load(record)
                yield Frame(image, index, float(index), self.name, origin=str(record.path))
