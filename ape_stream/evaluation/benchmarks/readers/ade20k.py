"""ADE20K with 150 classes: labels, and instances of the 100 things, as the challenge gives them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from pycocotools import mask as coco

from ape_stream.errors import SourceError
from ape_stream.evaluation.benchmarks.readers.dataset import (
    PanopticData,
    Record,
    RegionData,
    classes_of,
    images_of,
)
from ape_stream.evaluation.benchmarks.readers.labels import (
    image_files,
    label_image,
    records_of,
    semantic_data,
    table_of,
)
from ape_stream.evaluation.benchmarks.readers.rows import RegionRows
from ape_stream.evaluation.benchmarks.registry import class_list
from ape_stream.evaluation.benchmarks.scoring.panoptic import VOID, Segment
from ape_stream.evaluation.benchmarks.scoring.records import RegionTruth

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.places import Places
    from ape_stream.evaluation.benchmarks.readers.dataset import Dataset

__all__ = ["read_ade150"]

_CLASSES = 150


def read_ade150(places: Places) -> Dataset:
    """Semantic, panoptic or instance data, by the task's scorer."""
    labels = places.path("labels")
    records = records_of(image_files(places.path("images")))
    if places.task.scorer == "semantic":
        table = table_of({value: value - 1 for value in range(1, _CLASSES + 1)}, 255)
        return semantic_data(places, records, lambda one: table[_labels(labels, one)])
    instances = places.path("instances")
    if places.task.scorer == "panoptic":
        return _panoptic(places, records, labels, instances)
    return _instances(places, records, instances)


def _rows() -> list[tuple[int, str]]:
    """Position and name of each class."""
    return [(k, name) for k, (_, name) in enumerate(class_list("ade150"))]


def _thing_positions() -> dict[int, int]:
    """Position of the class of each number among the 100 things."""
    return {number: k for k, (number, _) in enumerate(class_list("ade150")) if number}


def _labels(folder: Path, record: Record) -> NDArray[np.int64]:
    return label_image(folder / f"{record.key}.png")


def _masks(folder: Path, record: Record) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """Number, position of the class, and mask of each instance of an image."""
    path = folder / f"{record.key}.png"
    pixels = label_image(path)
    if pixels.ndim != 3:
        raise SourceError(f"{path} is no colour image: red is the class, green the instance")
    things = _thing_positions()
    for number in np.unique(pixels[..., 1]).tolist():
        if number:
            mask = pixels[..., 1] == number
            [value] = np.unique(pixels[..., 0][mask]).tolist()
            yield number, things[value], mask


def _panoptic(
    places: Places, records: tuple[Record, ...], labels: Path, instances: Path
) -> PanopticData:
    """Stuff from the labels, things from the instances, which lie on top."""
    rows = _rows()
    things = np.isin(np.arange(len(rows)), list(_thing_positions().values()))

    def segments(record: Record) -> tuple[NDArray[np.int64], list[Segment]]:
        positions = _labels(labels, record) - 1
        stuff = (positions >= 0) & (positions < _CLASSES)
        stuff[stuff] = ~things[positions[stuff]]
        ids = np.where(stuff, positions + 1, VOID)
        # Ids of stuff are 1..150, those of things come after them.
        classes = {number: number - 1 for number in range(1, _CLASSES + 1)}
        for number, position, mask in _masks(instances, record):
            ids[mask] = _CLASSES + number
            classes[_CLASSES + number] = position
        found = [int(value) for value in np.unique(ids) if value != VOID]
        return ids, [Segment(value, classes[value]) for value in found]

    return PanopticData(
        task=places.task,
        classes=classes_of(rows),
        prompts=tuple(places.task.prompt(name) for _, name in rows),
        records=records,
        things=things,
        segments=segments,
    )


def _instances(places: Places, records: tuple[Record, ...], folder: Path) -> RegionData:
    """All classes are asked for, the things are scored."""
    rows = _rows()

    def truth() -> RegionTruth:
        regions, sizes = RegionRows(masks=True), []
        for record in records:
            for _, position, mask in _masks(folder, record):
                code = coco.encode(np.asfortranarray(mask[..., None].view(np.uint8)))[0]
                box = coco.toBbox(code).tolist()
                regions.add(record.image_id, position, box, area=float(mask.sum()), code=dict(code))
            sizes.append(label_image(folder / f"{record.key}.png").shape[:2])
        things = classes_of([rows[k] for k in sorted(_thing_positions().values())])
        return RegionTruth(images_of(records, sizes), things, regions.regions())

    return RegionData(
        task=places.task,
        classes=classes_of(rows),
        prompts=tuple(places.task.prompt(name) for _, name in rows),
        records=records,
        truth=cache(truth),
    )
