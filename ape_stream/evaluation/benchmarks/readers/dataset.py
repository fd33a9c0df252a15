"""What a reader returns: the images to look at, what is asked there, and the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from ape_stream.errors import SourceError
from ape_stream.evaluation.benchmarks.scoring.records import Classes, Images
from ape_stream.sources.pixels import read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.scoring.panoptic import Segment
    from ape_stream.evaluation.benchmarks.scoring.records import RegionTruth
    from ape_stream.evaluation.benchmarks.task import Task

__all__ = [
    "Dataset",
    "PanopticData",
    "Record",
    "RegionData",
    "SemanticData",
    "classes_of",
    "images_of",
    "inside",
]

NO_CLASS = -1
"""Value of pixels in label maps that are not scored."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a task, and what is asked there."""

    image_id: int
    """Of this record alone, in truth and predictions."""
    path: Path
    """The image."""
    key: int | str
    """What the data set itself calls it in results."""
    asked: tuple[int, ...] | None = None
    """Positions of the classes that are asked for; None for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """The images and classes of a task."""

    task: Task
    """The task, in its profile."""
    classes: Classes
    """The C classes that can be asked for."""
    prompts: tuple[str, ...]
    """(C) the text of each class; a text may stand for several."""
    records: tuple[Record, ...]
    """The images, in the order in which they are predicted."""
    load: Callable[[Record], NDArray[np.uint8]] = field(default=lambda one: read_image(one.path))
    """Reads an image, (H, W, 3) blue-green-red."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegionData(Dataset):
    """A task that is scored by regions."""

    truth: Callable[[], RegionTruth]
    """Reads the annotated regions; many numbers, so only on request."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SemanticData(Dataset):
    """A task that is scored by the class of every pixel."""

    labels: Callable[[Record], NDArray[np.int64]]
    """Reads (H, W): the position of each pixel's class, `NO_CLASS` where it is not scored."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PanopticData(Dataset):
    """A task that is scored by segments."""

    things: NDArray[np.bool_]
    """(C,) which classes are things."""
    segments: Callable[[Record], tuple[NDArray[np.int64], list[Segment]]]
    """Reads the (H, W) ids of segments, and the segments."""


def classes_of(rows: Iterable[tuple[int, str]], frequencies: Sequence[str] = ()) -> Classes:
    """Classes from pairs of id and name."""
    ids, names = zip(*rows, strict=True) if (rows := list(rows)) else ((), ())
    return Classes(np.array(ids, np.int64), tuple(names), tuple(frequencies) or None)


def images_of(records: Sequence[Record], sizes: Sequence[tuple[int, int]]) -> Images:
    """The images of records with these heights and widths."""
    ids = np.array([one.image_id for one in records], np.int64)
    return Images(ids, np.array(sizes, np.int32).reshape(len(records), 2))


def inside(folder: Path, name: str) -> Path:
    """A file in a folder, by the name that an annotation gives it.

    Raises:
        SourceError: the name leads out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise SourceError(f"an annotation names an image outside of {folder}: {name!r}")
    return folder / name
