"""What the benchmarks of this package share: an image and results to send, and the report."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import numpy as np
import typer

from ape_stream.types import Frame, FrameResult, Instances, Mask, PromptSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["SIZE", "Table", "camera_image", "percentiles", "report", "scene"]

SIZE: Final = (1080, 1920)
_NUMBER: Final = 9
"""Characters of a number."""
T = TypeVar("T")


def camera_image(
    rng: np.random.Generator, size: tuple[int, int] = SIZE, noise: int = 12
) -> NDArray[np.uint8]:  # (H, W, 3)
    """Gradients with a camera's noise: as JPEG it is as large as the image of a room.

    Args:
        rng: Source of the noise.
        size: Height and width in pixels.
        noise: Levels that the noise goes through, 1..135.
    """
    slopes = np.add.outer(np.linspace(40, 160, size[0]), np.linspace(0, 80, size[1]))  # (H, W)
    return (slopes[:, :, None] + rng.integers(0, noise, (*size, 3))).astype(np.uint8)


def scene(regions: int, size: tuple[int, int] = SIZE) -> FrameResult:
    """A result of blobs with rough edges, about 51,000 pixels each in 1080p, at random positions.

    Args:
        regions: How many.
        size: Height and width in pixels.
    """
    rng = np.random.default_rng(regions)  # the same scene in every run
    # An ellipse whose edge is wavy: long run lengths inside, and ragged outlines as of a model.
    height, width = 256 * size[0] // SIZE[0], 328 * size[1] // SIZE[1]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    blob = x**2 + y**2 + 0.1 * np.sin(40 * x) * np.cos(37 * y) < 0.75  # (height, width)
    corners = rng.integers(0, (size[1] - width, size[0] - height), (regions, 2))  # (N, 2)
    masks = tuple(Mask(blob, int(left), int(top)) for left, top in corners)
    boxes = np.hstack([corners, corners + np.array([width, height])]).astype(np.float32)  # (N, 4)
    scores = rng.random(regions).astype(np.float32)
    found = Instances(boxes, scores, np.zeros(regions, np.int64), masks, size)
    return FrameResult(Frame(camera_image(rng, size), 0, 0.0), found, PromptSet.of("blob"))


def percentiles(times_ms: Sequence[float]) -> tuple[float, float, float]:
    """Median, 95th and 99th percentile of at least one time, milliseconds."""
    p50, p95, p99 = np.percentile(times_ms, [50, 95, 99]).tolist()
    return p50, p95, p99


class Table(Generic[T]):
    """Measurements as a table, or each as a line of JSON: printed as they come.

    What was measured before something failed is then not lost.

    Args:
        columns: The text of each column, by its title.
        as_json: Print JSON.
        first: Characters of the first column.
    """

    def __init__(
        self, columns: Mapping[str, Callable[[T], str]], *, as_json: bool, first: int = 24
    ) -> None:
        self._columns = columns
        self._as_json = as_json
        self._widths = [first, *(max(_NUMBER, len(title)) for title in [*columns][1:])]
        self._begun = False

    def add(self, line: T) -> None:
        """Print one more: a dataclass instance."""
        if self._as_json:
            typer.echo(json.dumps(asdict(cast("Any", line))))
            return
        if not self._begun:
            self._print([*self._columns])
        self._print([text(line) for text in self._columns.values()])

    def _print(self, row: Sequence[str]) -> None:
        """The first column to the left, numbers to the right."""
        self._begun = True
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], self._widths[1:], strict=True)]
        typer.echo("  ".join([f"{row[0]:<{self._widths[0]}}", *cells]))


def report(
    lines: Iterable[T],
    columns: Mapping[str, Callable[[T], str]],
    *,
    as_json: bool,
    first: int = 24,
) -> None:
    """Print all measurements; see `Table`."""
    table = Table(columns, as_json=as_json, first=first)
    for line in lines:
        table.add(line)
