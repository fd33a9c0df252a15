"""Label images, where a pixel is its class: BDD10K, Pascal VOC, Pascal Context, ADE20K-847.

Each reader says how values become positions of classes; what is no class is not scored.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.io import loadmat

from ape_stream.errors import SourceError
from ape_stream.evaluation.benchmarks.readers.dataset import (
    NO_CLASS,
    Record,
    SemanticData,
    classes_of,
    inside,
)
from ape_stream.evaluation.benchmarks.readers.rows import strings
from ape_stream.evaluation.benchmarks.readers.unpickle import read_pickle
from ape_stream.evaluation.benchmarks.registry import class_list
from ape_stream.sources.pixels import read_image
from ape_stream.specs import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.places import Places

__all__ = [
    "image_files",
    "label_image",
    "read_ade847",
    "read_context",
    "read_labels",
    "read_voc",
    "records_of",
    "semantic_data",
    "table_of",
]

_SHORT_SIDE = 512
"""Pixels to which ADE20K-847 is made smaller, image and labels, as its preparation does."""


def label_image(path: Path) -> NDArray[np.int64]:
    """(H, W) or (H, W, C) values of an image; those of a palette are its indices.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image).astype(np.int64)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise SourceError(f"cannot read the label image {path}: {error}") from error


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, sorted by their names.

    Raises:
        SourceError: there is none.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise SourceError(f"{folder} holds no image")
    return found


def records_of(paths: Sequence[Path]) -> tuple[Record, ...]:
    """A record for each image, with ids from 1."""
    return tuple(Record(k, path, path.stem) for k, path in enumerate(paths, start=1))


def table_of(positions: Mapping[int, int], largest: int) -> NDArray[np.int64]:
    """(largest + 1,) the position of the class for each value of a label image."""
    table = np.full(largest + 1, NO_CLASS, np.int64)
    for value, position in positions.items():
        table[value] = position
    return table


def semantic_data(
    places: Places,
    records: tuple[Record, ...],
    labels: Callable[[Record], NDArray[np.int64]],
    **more: Any,
) -> SemanticData:
    """The data of a task whose classes are in a list."""
    task = places.task
    assert task.classes is not None  # noqa: S101 (a test reads every task)
    classes = classes_of(class_list(task.classes))
    prompts = tuple(map(task.prompt, classes.names))
    return SemanticData(
        task=task, classes=classes, prompts=prompts, records=records, labels=labels, **more
    )


def read_labels(places: Places) -> SemanticData:
    """A folder of label images and one of images; values are the numbers in the list of classes."""
    folder, images = places.path("labels"), places.path("images")
    records = records_of([images / f"{path.stem}.jpg" for path in image_files(folder)])
    assert places.task.classes is not None  # noqa: S101 (the same)
    values = {number: k for k, (number, _) in enumerate(class_list(places.task.classes))}
    table = table_of(values, 255)
    return semantic_data(
        places, records, lambda one: table[label_image(folder / f"{one.path.stem}.png")]
    )


def _listed(places: Places) -> tuple[Record, ...]:
    folder = places.path("images")
    names = strings(places.path("listing"))
    return records_of([inside(folder, f"{name}.jpg") for name in names])


def read_voc(places: Places) -> SemanticData:
    """Pascal VOC: 1..20 are classes; 0 is the background, 255 a border."""
    folder = places.path("labels")
    table = table_of({value: value - 1 for value in range(1, 21)}, 255)
    return semantic_data(
        places, _listed(places), lambda one: table[label_image(folder / f"{one.key}.png")]
    )


def read_context(places: Places) -> SemanticData:
    """Pascal Context: MATLAB files with a number of `labels.txt` for every pixel."""
    folder, numbers = places.path("labels"), _numbered(places.path("names"))
    if "chosen" in places.task.paths:
        chosen = list(_numbered(places.path("chosen")))
    else:
        chosen = list(numbers)
    if unknown := [name for name in chosen if name not in numbers]:
        raise SourceError(f"{places.path('names')} does not list {unknown[0]!r}")
    assert places.task.classes is not None  # noqa: S101 (the same)
    if len(chosen) != len(class_list(places.task.classes)):
        raise SourceError(f"{len(chosen)} classes are listed: {places.task.name} has others")
    table = table_of({numbers[name]: k for k, name in enumerate(chosen)}, 65535)
    return semantic_data(places, _listed(places), partial(_context_labels, folder, table))


def _numbered(path: Path) -> dict[str, int]:
    """Numbers by name, from lines such as "23: bench"."""
    pairs = [line.split(":", 1) for line in strings(path) if ":" in line]
    return {name.strip(): int(number) for number, name in pairs}


def _context_labels(folder: Path, table: NDArray[np.int64], record: Record) -> NDArray[np.int64]:
    path = folder / f"{record.key}.mat"
    try:
        values = loadmat(path)["LabelMap"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    labels: NDArray[np.int64] = table[values.astype(np.int64)]
    return labels


def read_ade847(places: Places) -> SemanticData:
    """ADE20K in full: red and green of `*_seg.png` are the number of a class."""
    index = read_pickle(places.path("annotations"))
    listed = zip(index["folder"], index["filename"], strict=True)
    paths = [
        inside(places.root, f"{folder}/{name}")
        for folder, name in listed
        if name.split("_")[1] == "val"
    ]
    assert places.task.classes is not None  # noqa: S101 (the same)
    values = {number: k for k, (number, _) in enumerate(class_list(places.task.classes))}
    table = table_of(values, 26 * 256)
    return semantic_data(
        places,
        records_of(paths),
        partial(_ade_labels, table),
        load=lambda one: _smaller(read_image(one.path), cv2.INTER_LINEAR),
    )


def _ade_labels(table: NDArray[np.int64], record: Record) -> NDArray[np.int64]:
    pixels = label_image(record.path.with_name(f"{record.path.stem}_seg.png"))
    values = pixels[..., 0] // 10 * 256 + pixels[..., 1]
    smaller = _smaller(values.astype(np.int32), cv2.INTER_NEAREST)
    labels: NDArray[np.int64] = table[smaller]
    return labels


def _smaller(array: NDArray[Any], interpolation: int) -> NDArray[Any]:
    """An image whose short side is `_SHORT_SIDE` at most."""
    height, width = array.shape[:2]
    short = min(height, width)
    if short <= _SHORT_SIDE:
        return array
    size = [
        _SHORT_SIDE if side == short else round(side / float(short) * _SHORT_SIDE)
        for side in (width, height)
    ]
    return cv2.resize(array, size, interpolation=interpolation)
