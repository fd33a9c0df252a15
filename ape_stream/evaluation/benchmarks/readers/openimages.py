"""Open Images: boxes and verified labels as the CSV files that Google gives out."""

from __future__ import annotations

import csv
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ape_stream.errors import SourceError
from ape_stream.evaluation.benchmarks.readers.dataset import (
    Record,
    RegionData,
    classes_of,
    images_of,
    inside,
)
from ape_stream.evaluation.benchmarks.readers.rows import RegionRows, read_json, upright_size
from ape_stream.evaluation.benchmarks.scoring.openimages import ancestors
from ape_stream.evaluation.benchmarks.scoring.records import Federation, RegionTruth

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ape_stream.evaluation.benchmarks.places import Places
    from ape_stream.evaluation.benchmarks.scoring.openimages import Ancestors
    from ape_stream.evaluation.benchmarks.scoring.records import TrueRegions

__all__ = ["class_tree", "label_numbers", "read_openimages"]

_HIERARCHY = "openimages/annotations/challenge-2019-label500-hierarchy.json"
"""Optional: with it, AP is also given for detections that count for the classes above theirs."""


def read_openimages(places: Places) -> RegionData:
    """The images of the listing, in its order; class ids count from 1 in the order of the names."""
    folder = places.path("images")
    keys = [row["ImageID"] for row in _table(places.path("listing"))]
    numbers = {key: position for position, key in enumerate(keys, start=1)}
    records = tuple(
        Record(number, inside(folder, f"{key}.jpg"), key) for key, number in numbers.items()
    )
    labels = _names(places.path("names"))
    classes = classes_of(enumerate(labels.values(), start=1))

    def truth() -> RegionTruth:
        sizes = [upright_size(record.path) for record in records]
        images = images_of(records, sizes)
        by_number = dict(zip(images.ids.tolist(), sizes, strict=True))
        ids = label_numbers(labels)
        regions = _regions(places.path("annotations"), numbers, ids, by_number)
        federation = _federation(places.path("verified"), numbers, ids, regions)
        return RegionTruth(images, classes, regions, federation)

    return RegionData(
        task=places.task,
        classes=classes,
        prompts=tuple(map(places.task.prompt, classes.names)),
        records=records,
        truth=cache(truth),
    )


def label_numbers(labels: Mapping[str, str]) -> dict[str, int]:
    """The class id of each label."""
    return {label: number for number, label in enumerate(labels, start=1)}


def class_tree(places: Places) -> Ancestors | None:
    """The classes above each class, where the challenge's hierarchy is there."""
    path = places.root / _HIERARCHY
    if not path.exists():
        return None
    return ancestors(read_json(path), label_numbers(_names(places.path("names"))))


def _table(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise SourceError(f"cannot read {path}: {error}") from error


def _names(path: Path) -> dict[str, str]:
    """Names by label; the file of boxable classes has no head, newer ones have."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    return {row[0]: row[1] for row in rows if row[0] != "LabelName"}


def _regions(
    path: Path,
    numbers: Mapping[str, int],
    ids: Mapping[str, int],
    sizes: Mapping[int, tuple[int, int]],
) -> TrueRegions:
    rows = RegionRows(masks=False)
    for row in _table(path):
        image = numbers.get(row["ImageID"])
        if image is None or row["LabelName"] not in ids:
            continue
        height, width = sizes[image]
        left, right = (float(row[key]) * width for key in ("XMin", "XMax"))
        top, bottom = (float(row[key]) * height for key in ("YMin", "YMax"))
        # Two decimals, as in the files that the official converter makes.
        box = [round(value, 2) for value in (left, top, right - left, bottom - top)]
        group = int(row["IsGroupOf"]) == 1
        rows.add(image, ids[row["LabelName"]], box, group=group)
    return rows.regions()


def _federation(
    path: Path, numbers: Mapping[str, int], ids: Mapping[str, int], regions: TrueRegions
) -> Federation:
    pairs: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    for row in _table(path):
        if row["ImageID"] in numbers and row["LabelName"] in ids:
            confidence = float(row["Confidence"])
            if confidence in (0.0, 1.0):
                pairs[confidence == 1.0].append((numbers[row["ImageID"]], ids[row["LabelName"]]))
    # A box verifies its class, should the labels lack it.
    present = np.stack([regions.image_ids, regions.class_ids], 1)
    positive, negative = (np.array(pairs[key], np.int64).reshape(-1, 2) for key in (True, False))
    return Federation(
        negative=negative,
        not_exhaustive=np.zeros((0, 2), np.int64),
        positive=np.unique(np.concatenate([positive, present]), axis=0),
    )
