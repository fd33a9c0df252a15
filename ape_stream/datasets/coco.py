"""COCO instances; every row is checked, every fault reported or counted.

All readers of the package go through these checks: VOC and YOLO become rows of COCO's fields first.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, TypeAlias

from pycocotools import mask as rle

from ape_stream.datasets.instances import (
    DatasetError,
    InstanceData,
    InstanceImage,
    Region,
    Skips,
)
from ape_stream.datasets.rows import Row, Rows, is_cut_short, read_image_size
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_rows", "read_coco"]

_IGNORED = {"crowd": "iscrowd", "difficult": "difficult"}
"""Causes for which a region need not be found, and the fields that say so."""


def read_coco(path: Path, folder: Path | None = None) -> InstanceData:
    """Read instances in COCO's format and check every row.

    A row that cannot be parsed is an error. A region that can be parsed but not be used (a crowd,
    outside the image, no area) is counted and left out.

    Args:
        path: The JSON file.
        folder: Folder of the images; None: that of the file.

    Raises:
        DatasetError: the file cannot be read or holds no usable region, an image is missing, or two
            categories share a name; the message names the file and the row.
    """
    table = _load(path)

    def rows(what: str, key: str) -> list[Row]:
        return [Row(f"{path}: {what} row {k}", c) for k, c in enumerate(table[key])]

    given = Rows(
        rows("image", "images"), rows("category", "categories"), rows("annotation", "annotations")
    )
    return check_rows(path, path.parent if folder is None else folder, given)


def check_rows(path: Path, folder: Path, rows: Rows) -> InstanceData:
    """Check the rows of a data set.

    Args:
        path: What the user named, for messages.
        folder: Folder of the images.
        rows: In the fields of COCO's format.

    Raises:
        DatasetError: see `read_coco`.
    """
    categories = rows.categories
    words = [(_words(row), row.content.get("isthing", 1) != 0) for row in categories]
    _refuse_shared_names(categories, [w for w, _ in words])
    # Class ids are ours, things before stuffs; a file's own ids may be any numbers.
    order = sorted(range(len(words)), key=lambda k: not words[k][1])
    ids = [row.get("id", (int, str), "a number") for row in categories]
    class_of = {ids[k]: position for position, k in enumerate(order)}
    if len(class_of) < len(ids):
        raise DatasetError(f"{path}: two categories have the same id")
    skips = Skips()
    images, cut = _images(folder, rows.images, skips)
    found: dict[Any, tuple[list[Region], list[Region]]] = {key: ([], []) for key in images}
    for row in rows.annotations:
        key, category = row.content.get("image_id"), row.content.get("category_id")
        if key in cut and category in class_of:
            continue
        if key not in images or category not in class_of:
            raise DatasetError(
                f"{row.where} refers to an image or category that is not in the file"
            )
        region, ignored = _region(row, class_of[category], images[key][1], skips)
        if region is not None:
            found[key][ignored].append(region)
    if not any(regions for regions, _ in found.values()):
        raise DatasetError(f"{path} holds no usable region; left out: {skips}")
    return InstanceData(
        images=tuple(
            InstanceImage(*images[key], tuple(regions), tuple(ignored))
            for key, (regions, ignored) in found.items()
        ),
        names=tuple(words[k][0][0] for k in order),
        synonyms=tuple(words[k][0][1:] for k in order),
        things=sum(thing for _, thing in words),
        skips=skips,
    )


def _load(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        table: dict[str, Any] = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is no COCO file: {error}") from error
    for key in ("images", "annotations", "categories"):
        rows = table.get(key) if isinstance(table, dict) else None
        if not isinstance(rows, list) or not rows:
            raise DatasetError(f"{path} has no {key}: it is no COCO file of instances, or empty")
        for k, row in enumerate(rows):
            if not isinstance(row, dict):
                raise DatasetError(f"{path}: row {k} of {key} is {row!r} and no table")
    return table


def _words(row: Row) -> tuple[str, ...]:
    """Name and synonyms of a category."""
    name = row.get("name", str, "a text").strip()
    synonyms = row.content.get("synonyms", [])
    if not isinstance(synonyms, list) or not all(isinstance(s, str) for s in synonyms):
        raise DatasetError(f"{row.where}: synonyms is a list of texts, not {synonyms!r}")
    for word in (name, *synonyms):
        if not _has_words(word):
            raise DatasetError(f"{row.where}: {word!r} holds no letter or digit")
    return (name, *synonyms)


def _has_words(text: str) -> bool:
    """Whether a text has a letter or a digit, so that it can be a prompt."""
    return any(letter.isalnum() for letter in text)


def _refuse_shared_names(rows: list[Row], words: list[tuple[str, ...]]) -> None:
    """Refuse a name that two categories share."""
    seen: dict[str, int] = {}
    for k, (row, own) in enumerate(zip(rows, words, strict=True)):
        for word in own:
            first = seen.setdefault(word.casefold(), k)
            if first != k:
                raise DatasetError(
                    f"{row.where} repeats the name {word!r} of row {first}; rename or merge"
                )


_Files: TypeAlias = "dict[Any, tuple[Path, tuple[int, int]]]"


def _images(folder: Path, rows: list[Row], skips: Skips) -> tuple[_Files, set[Any]]:
    """File and (height, width) of each image by its id, and the ids of those that are cut short."""
    found: _Files = {}
    cut: set[Any] = set()
    for row in rows:
        key = row.get("id", (int, str), "a number")
        file = folder / row.get("file_name", str, "a text")
        size = (row.get("height", int, "pixels"), row.get("width", int, "pixels"))
        if key in found or key in cut:
            raise DatasetError(f"{row.where} repeats the id {key!r}")
        if not file.is_file():
            raise DatasetError(f"{row.where}: {file} is missing; --images names its folder")
        read_image_size(file, row.where, size)
        if is_cut_short(file):
            skips.add("image cut short")
            cut.add(key)
        else:
            found[key] = (file, size)
    return found, cut


def _region(
    row: Row, class_id: int, size: tuple[int, int], skips: Skips
) -> tuple[Region | None, bool]:
    """Parse one annotation; None, and counted, where it cannot be used.

    Returns:
        The region, and whether it need not be found: such a one is counted too.
    """
    box = _box(row, size)
    shape = row.content.get("segmentation")
    # pycocotools raises these on a shape that it cannot parse.
    try:
        fault = _fault(row.content, box, shape, size)
    except (TypeError, ValueError, KeyError) as error:
        raise DatasetError(
            f"{row.where}: no polygons and no run-length encoding: {error!r}"
        ) from error
    ignored = fault in _IGNORED
    if fault is not None:
        skips.add(fault)
        if not ignored:
            return None, False
    phrases = row.content.get("phrases", [])
    if not isinstance(phrases, list) or not all(
        isinstance(p, str) and _has_words(p) for p in phrases
    ):
        raise DatasetError(f"{row.where}: phrases is a list of texts with words, not {phrases!r}")
    x, y, w, h = box
    outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return Region(class_id, shape or outline, bool(shape), tuple(phrases)), ignored


def _box(row: Row, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return x, y, width, height; the whole image where the annotation has a mask alone."""
    content = row.content
    if not content.get("bbox") and not content.get("segmentation"):
        raise DatasetError(f"{row.where} has neither bbox nor segmentation")
    box = content.get("bbox") or [0, 0, size[1], size[0]]
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
        raise DatasetError(f"{row.where}: bbox is x, y, width, height, not {box!r}")
    x, y, w, h = (float(v) for v in box)
    return x, y, w, h


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _fault(
    content: dict[str, Any],
    box: tuple[float, float, float, float],
    shape: Any,
    size: tuple[int, int],
) -> str | None:
    """Return why a region cannot be used, None where it can."""
    height, width = size
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return "box without area"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "outside the image"
    fault = None
    if shape:
        check = _polygon_fault if isinstance(shape, list) else _code_fault
        fault = check(shape, size)
    return fault or next((cause for cause in _IGNORED if content.get(_IGNORED[cause])), None)


def _polygon_fault(shape: list[list[float]], size: tuple[int, int]) -> str | None:
    for part in shape:
        if not isinstance(part, list) or len(part) % 2 or not all(_is_number(v) for v in part):
            raise ValueError(f"a polygon is x, y, x, y, ..., not {part!r}")
    if all(len(part) < 6 for part in shape):
        return "outline of fewer than three points"
    # In place: pycocotools refuses a polygon of fewer than three points, and the shape is kept.
    shape[:] = [part for part in shape if len(part) >= 6]
    xs, ys = [v for part in shape for v in part[::2]], [v for part in shape for v in part[1::2]]
    if min(xs) >= size[1] or min(ys) >= size[0] or max(xs) <= 0 or max(ys) <= 0:
        return "outside the image"
    return None if rle.area(rle.frPyObjects(shape, *size)).any() else "mask without area"


def _code_fault(shape: dict[str, Any], size: tuple[int, int]) -> str | None:
    if tuple(shape["size"]) != size:
        return "mask of another size than its image"
    counts = shape["counts"]
    if isinstance(counts, list):
        # Runs of background and region in turn, background first.
        if sum(counts) != size[0] * size[1]:
            return "mask of another size than its image"
        return None if sum(counts[1::2]) > 0 else "mask without area"
    if not isinstance(counts, str):
        raise TypeError(f"counts is a text or a list of numbers, not {counts!r}")
    return None if int(rle.area(shape)) > 0 else "mask without area"
