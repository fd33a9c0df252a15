"""Panoptic maps: COCO's format, and what Cityscapes and ADE20K have in its place."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco

from ape_stream.errors import SourceError
from ape_stream.evaluation.benchmarks.readers.dataset import (
    NO_CLASS,
    PanopticData,
    Record,
    RegionData,
    SemanticData,
    classes_of,
    images_of,
    inside,
)
from ape_stream.evaluation.benchmarks.readers.labels import label_image, semantic_data, table_of
from ape_stream.evaluation.benchmarks.readers.rows import RegionRows, rows_of
from ape_stream.evaluation.benchmarks.registry import class_list
from ape_stream.evaluation.benchmarks.scoring.cityscapes import NOT_EVALUATED
from ape_stream.evaluation.benchmarks.scoring.panoptic import VOID, Segment
from ape_stream.evaluation.benchmarks.scoring.records import RegionTruth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.places import Places
    from ape_stream.evaluation.benchmarks.readers.dataset import Dataset

__all__ = ["city_segments", "read_cityscapes", "read_panoptic"]

_FIRST_BDD_THING = 31
"""Ids of BDD10K's 40 classes from here on are things."""
_FIRST_CITY_THING = 24
"""Ids of Cityscapes' classes from here on are things."""
_CITY_NOT_EVALUATED = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
"""Ids of pixels that Cityscapes does not evaluate (`ignoreInEval`); an instance of a caravan or a
trailer has another id, and is evaluated as background."""
_INSTANCES = 1000
"""Cityscapes: an id from here on is 1000 times the class and the number of the instance."""


def read_panoptic(places: Places) -> Dataset:
    """A JSON file of segments, and a PNG with their ids for each image.

    For a semantic score the class of each pixel is that of its segment. Option `merge_things`: all
    things are one class, "things", before the stuff, as detectron2 has it for COCO-stuff.
    """
    path, folder = places.path("annotations"), places.path("segments")
    classes, things = _classes(places, path)
    rows = sorted(rows_of(path, "annotations"), key=lambda row: str(row["file_name"]))
    images = places.path("images")
    names = [str(row["file_name"]).removesuffix(".png") + ".jpg" for row in rows]
    records = tuple(Record(k, inside(images, name), name) for k, name in enumerate(names, start=1))
    found = {record.image_id: row for record, row in zip(records, rows, strict=True)}
    read = partial(_coco_segments, folder, found)
    if places.task.scorer == "panoptic":
        return PanopticData(
            task=places.task,
            classes=classes_of(classes),
            prompts=tuple(places.task.prompt(name) for _, name in classes),
            records=records,
            things=things,
            segments=read,
        )
    ids = [number for number, _ in classes]
    positions = {number: k for k, number in enumerate(ids)}
    if places.task.options.get("merge_things"):
        stuff = [one for one, thing in zip(classes, things, strict=True) if not thing]
        classes = [(0, "things"), *stuff]
        listed = {number: k for k, (number, _) in enumerate(classes)}
        positions = {number: listed.get(number, 0) for number in ids}
    return SemanticData(
        task=places.task,
        classes=classes_of(classes),
        prompts=tuple(places.task.prompt(name) for _, name in classes),
        records=records,
        labels=lambda one: _classes_of_pixels(*read(one), positions),
    )


def _classes(places: Places, path: Path) -> tuple[list[tuple[int, str]], NDArray[np.bool_]]:
    """Number and name of the classes, and which are things."""
    if places.task.classes is not None:
        listed = list(class_list(places.task.classes))
        return listed, np.array([number >= _FIRST_BDD_THING for number, _ in listed])
    rows = sorted(rows_of(path, "categories"), key=lambda row: row["id"])
    if not rows:
        raise SourceError(f"{path} has no categories")
    things = np.array([bool(row["isthing"]) for row in rows])
    return [(row["id"], row["name"]) for row in rows], things


def _coco_segments(
    folder: Path, rows: Mapping[int, dict[str, Any]], record: Record
) -> tuple[NDArray[np.int64], list[Segment]]:
    row = rows[record.image_id]
    colours = label_image(inside(folder, row["file_name"]))
    if colours.ndim != 3:
        raise SourceError(f"{folder / row['file_name']} is no colour image")
    ids = colours[..., 0] + 256 * colours[..., 1] + 256 * 256 * colours[..., 2]
    segments = [
        Segment(one["id"], one["category_id"], bool(one.get("iscrowd", 0)), one.get("area"))
        for one in row["segments_info"]
    ]
    return ids, segments


def _classes_of_pixels(
    ids: NDArray[np.int64], segments: list[Segment], positions: Mapping[int, int]
) -> NDArray[np.int64]:
    """(H, W) position of the class of each pixel's segment."""
    values, inverse = np.unique(ids, return_inverse=True)
    by_id = {segment.id: positions.get(segment.class_id, NO_CLASS) for segment in segments}
    table = np.array([by_id.get(int(value), NO_CLASS) for value in values], np.int64)
    labels: NDArray[np.int64] = table[inverse].reshape(ids.shape)
    return labels


def read_cityscapes(places: Places) -> Dataset:
    """Cityscapes' fine annotations: `labelIds` for classes, `instanceIds` for all else."""
    labels, images = places.path("labels"), places.path("images")
    found = sorted(images.glob("*/*_leftImg8bit.png"))
    if not found:
        raise SourceError(f"{images} holds no */*_leftImg8bit.png")
    records = tuple(Record(k, path, path.stem) for k, path in enumerate(found, start=1))

    def file(record: Record, kind: str) -> Path:
        name = record.path.name.replace("_leftImg8bit.png", f"_gtFine_{kind}.png")
        return labels / record.path.parent.name / name

    assert places.task.classes is not None  # noqa: S101 (a test reads every task)
    classes = class_list(places.task.classes)
    if places.task.scorer == "cityscapes":
        return _instances(places, records, lambda one: label_image(file(one, "instanceIds")))
    if places.task.scorer == "panoptic":
        return PanopticData(
            task=places.task,
            classes=classes_of(classes),
            prompts=tuple(places.task.prompt(name) for _, name in classes),
            records=records,
            things=np.array([number >= _FIRST_CITY_THING for number, _ in classes]),
            segments=lambda one: city_segments(label_image(file(one, "instanceIds"))),
        )
    table = table_of({number: k for k, (number, _) in enumerate(classes)}, 255)
    return semantic_data(places, records, lambda one: table[label_image(file(one, "labelIds"))])


def _instances(
    places: Places, records: tuple[Record, ...], ids_of: Callable[[Record], NDArray[np.int64]]
) -> RegionData:
    """The regions of the eight things, and one region of what is not evaluated in each image."""
    things = [one for one in class_list("cityscapes") if one[0] >= _FIRST_CITY_THING]

    def truth() -> RegionTruth:
        regions, sizes = RegionRows(masks=True), []
        for record in records:
            ids = ids_of(record)
            sizes.append(ids.shape[:2])
            for class_id, group, mask in _city_regions(ids, {number for number, _ in things}):
                code = dict(coco.encode(np.asfortranarray(mask[..., None].view(np.uint8)))[0])
                box, area = coco.toBbox(code).tolist(), float(mask.sum())
                regions.add(record.image_id, class_id, box, area=area, group=group, code=code)
        return RegionTruth(images_of(records, sizes), classes_of(things), regions.regions())

    return RegionData(
        task=places.task,
        classes=classes_of(things),
        prompts=tuple(places.task.prompt(name) for _, name in things),
        records=records,
        truth=cache(truth),
    )


def _city_regions(
    ids: NDArray[np.int64], things: set[int]
) -> Iterator[tuple[int, bool, NDArray[np.bool_]]]:
    """Class, whether it is a group, and mask of each region of a map of instance ids."""
    for value in np.unique(ids).tolist():
        number = value // _INSTANCES if value >= _INSTANCES else value
        if number in things:
            yield number, value < _INSTANCES, ids == value
    void = np.isin(ids, _CITY_NOT_EVALUATED)
    if void.any():
        yield NOT_EVALUATED, True, void


def city_segments(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Segment]]:
    """Segments of a map of Cityscapes' instance ids; those of no class become void.

    A value below 1000 of a class of things is a group of instances that were not told apart.
    """
    known = {number for number, _ in class_list("cityscapes")}
    segments, kept = [], ids.copy()
    for value, area in zip(*np.unique(ids, return_counts=True), strict=True):
        number = int(value) // _INSTANCES if value >= _INSTANCES else int(value)
        if number not in known:
            kept[ids == value] = VOID
            continue
        crowd = value < _INSTANCES and number >= _FIRST_CITY_THING
        segments.append(Segment(int(value), number, bool(crowd), int(area)))
    return kept, segments
