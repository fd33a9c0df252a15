"""Files in the format of COCO's instances, and their relatives: LVIS, Objects365, ODinW, RefCOCO.

Classes are in the order of their ids. Image ids that are not whole numbers from 1 on, such as the 0
in ODinW, are replaced by positions.
"""

from __future__ import annotations

from functools import cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream.errors import SourceError
from ape_stream.evaluation.benchmarks.readers.dataset import (
    Record,
    RegionData,
    classes_of,
    images_of,
    inside,
)
from ape_stream.evaluation.benchmarks.readers.rows import RegionRows, mask_code, rows_of
from ape_stream.evaluation.benchmarks.registry import class_list
from ape_stream.evaluation.benchmarks.scoring.records import Federation, RegionTruth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ape_stream.evaluation.benchmarks.places import Places
    from ape_stream.evaluation.benchmarks.scoring.records import Classes, Images, TrueRegions

__all__ = ["read_coco", "read_lvis", "read_refcoco", "truth_of"]


def read_coco(places: Places) -> RegionData:
    """COCO's instances; option `first`: only so many images, the first ones of the file."""
    path = places.path("annotations")
    rows = list(islice(rows_of(path, "images"), places.task.options.get("first")))
    return _region_data(places, path, rows, lambda row: str(row["file_name"]))


def read_lvis(places: Places) -> RegionData:
    """LVIS: names are first synonyms, images are named by their address at COCO."""
    path = places.path("annotations")
    rows = list(rows_of(path, "images"))

    def name(row: Mapping[str, Any]) -> str:
        address = row.get("coco_url") or row["file_name"]
        return "/".join(str(address).split("/")[-2:])

    return _region_data(places, path, rows, name, federated=True)


def _region_data(
    places: Places,
    path: Path,
    rows: list[dict[str, Any]],
    name: Callable[[Mapping[str, Any]], str],
    *,
    federated: bool = False,
) -> RegionData:
    images = places.path("images")
    ids = _numbers([row["id"] for row in rows])
    rows.sort(key=lambda row: ids[row["id"]])
    records = tuple(Record(ids[row["id"]], inside(images, name(row)), row["id"]) for row in rows)
    sizes = images_of(records, [(row["height"], row["width"]) for row in rows])
    classes = _classes(places, path, federated=federated)

    def truth() -> RegionTruth:
        masks = "mask" in places.task.kinds
        regions = truth_of(path, sizes, ids, masks=masks)
        federation = _federation(rows, ids) if federated else None
        return RegionTruth(sizes, classes, regions, federation)

    return RegionData(
        task=places.task,
        classes=classes,
        prompts=tuple(map(places.task.prompt, classes.names)),
        records=records,
        truth=cache(truth),
    )


def _numbers(ids: list[Any]) -> dict[Any, int]:
    """A number from 1 on for each image id: itself, where all of them are such numbers."""
    if len(set(ids)) < len(ids):
        raise SourceError("an image id is given twice")
    if all(isinstance(one, int) and 1 <= one < 1 << 31 for one in ids):
        return {one: one for one in ids}
    return {one: position for position, one in enumerate(ids, start=1)}


def _classes(places: Places, path: Path, *, federated: bool) -> Classes:
    rows = sorted(rows_of(path, "categories"), key=lambda row: row["id"])
    if not rows:
        raise SourceError(f"{path} has no categories")
    names = [row["synonyms"][0] if federated else row["name"] for row in rows]
    if places.task.classes is not None:
        listed = class_list(places.task.classes)
        if len(listed) != len(rows):
            raise SourceError(f"{path} has {len(rows)} categories, not {len(listed)}")
        names = [name for _, name in listed]
    frequencies = [row["frequency"] for row in rows] if federated else ()
    return classes_of(zip([row["id"] for row in rows], names, strict=True), frequencies)


def truth_of(path: Path, images: Images, ids: Mapping[Any, int], *, masks: bool) -> TrueRegions:
    """The annotations of a file in COCO's format.

    Args:
        path: The file.
        images: Ids and sizes of the images that count; annotations of others are left out.
        ids: The number of each image id of the file.
        masks: Whether masks are read.
    """
    sizes = dict(zip(images.ids.tolist(), map(tuple, images.sizes.tolist()), strict=True))
    rows = RegionRows(masks=masks)
    for row in rows_of(path, "annotations"):
        image = ids.get(row["image_id"])
        if image is not None and image in sizes:
            code = mask_code(row.get("segmentation"), sizes[image]) if masks else None
            area, group = row.get("area"), bool(row.get("iscrowd", 0))
            rows.add(image, row["category_id"], row["bbox"], area=area, group=group, code=code)
    return rows.regions()


def _federation(rows: list[dict[str, Any]], ids: Mapping[Any, int]) -> Federation:
    def pairs(key: str) -> Any:
        listed = [(ids[row["id"]], one) for row in rows for one in row.get(key, ())]
        return np.array(listed, np.int64).reshape(-1, 2)

    nothing = np.zeros((0, 2), np.int64)
    return Federation(pairs("neg_category_ids"), pairs("not_exhaustive_category_ids"), nothing)


def read_refcoco(places: Places) -> RegionData:
    """RefCOCO in the records of SeqTR: an image with expressions, and one region for them."""
    path, images = places.path("annotations"), places.path("images")
    rows = list(rows_of(path, "images"))
    asked = [(row, text) for row in rows for text in row["expressions"]]
    records = tuple(
        Record(k + 1, inside(images, row["file_name"]), row["id"], (k,))
        for k, (row, _) in enumerate(asked)
    )
    texts = [text for _, text in asked]
    classes = classes_of(enumerate(texts))
    sizes = images_of(records, [(row["height"], row["width"]) for row, _ in asked])
    return RegionData(
        task=places.task,
        classes=classes,
        prompts=tuple(texts),
        records=records,
        truth=cache(partial(_referred, path, [row["id"] for row, _ in asked], classes, sizes)),
    )


def _referred(path: Path, keys: list[Any], classes: Classes, images: Images) -> RegionTruth:
    """The region of each expression; `keys` are the ids of their image records."""
    by_key = {row["image_id"]: row for row in rows_of(path, "annotations")}
    rows = RegionRows(masks=True)
    for position, (key, size) in enumerate(zip(keys, images.sizes.tolist(), strict=True)):
        if key not in by_key:
            raise SourceError(f"{path}: image record {key} has no region")
        row = by_key[key]
        code = mask_code(row["segmentation"], tuple(size))
        rows.add(position + 1, position, row["bbox"], area=row.get("area"), code=code)
    return RegionTruth(images, classes, rows.regions())
