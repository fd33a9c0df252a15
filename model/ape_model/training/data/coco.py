"""A user's own pictures: COCO instances, every line checked, every fault named or counted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image, UnidentifiedImageError
from pycocotools import mask as rle

from ape_model.text.nano_tower import split_words
from ape_model.training.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CocoData", "Picture", "Region", "Shape", "Skips", "read_coco"]

Shape = dict[str, Any] | list[list[float]]
"""A run-length code, or polygons."""
_TURNED = (5, 6, 7, 8)
"""Values of EXIF's orientation that exchange width and height."""
_ORIENTATION = 0x0112


@dataclass(slots=True)
class Skips:
    """How many annotations were left out, by cause."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, cause: str) -> None:
        """Count one."""
        self.counts[cause] = self.counts.get(cause, 0) + 1

    def __str__(self) -> str:
        """Tell the counts: "3 crowd, 1 box without area"; "nothing" for none."""
        return ", ".join(f"{count} {cause}" for cause, count in self.counts.items()) or "nothing"


@dataclass(frozen=True, slots=True)
class Region:
    """One usable annotation."""

    class_id: int
    shape: Shape
    """Its outline; the outline of its box where it has no mask."""
    masked: bool
    """False where `shape` is only a box, so that no mask can be learnt from it."""
    phrases: tuple[str, ...]
    """What it is called in words, from the (unofficial) field `phrases`."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A file with the regions in it."""

    path: Path
    size: tuple[int, int]
    """Height and width, pixels."""
    regions: tuple[Region, ...]
    """At least one."""


@dataclass(frozen=True, slots=True, eq=False)
class CocoData:
    """A checked data set."""

    pictures: tuple[Picture, ...]
    """Those with regions; all files are there and have the size that is said."""
    names: tuple[str, ...]
    """Main name of each class, things first, then stuffs."""
    synonyms: tuple[tuple[str, ...], ...]
    """Further words of each class, from the (unofficial) field `synonyms` of a category."""
    things: int
    """How many classes are things; a category of `isthing` 0, as in panoptic files, is stuff."""
    skips: Skips
    """What was left out."""

    def frequencies(self) -> list[int]:
        """In how many pictures each class occurs."""
        counts = [0] * len(self.names)
        for picture in self.pictures:
            for class_id in {region.class_id for region in picture.regions}:
                counts[class_id] += 1
        return counts


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a table, to speak of in messages."""

    where: str
    content: dict[str, Any]

    def get(self, key: str, kinds: type | tuple[type, ...], what: str) -> Any:
        """Return a field that must be there.

        Raises:
            DataError: it is missing or of another type.
        """
        value = self.content.get(key)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise DataError(f"{self.where} needs {key!r}, {what}; it is {value!r}")
        return value


def read_coco(path: Path, folder: Path | None = None) -> CocoData:
    """Read instances in COCO's format and check every line.

    What cannot be understood is an error; a region that can be understood but not be learnt from
    (a crowd, nothing of it in the picture, no area) is counted and left out.

    Args:
        path: the JSON file.
        folder: where the pictures lie; None: beside the file.

    Raises:
        DataError: the file cannot be read, holds no usable region, misses a picture, or names a
            category twice; the message names the file and row.
    """
    table = _load(path)
    categories = [_Row(f"{path}: category row {k}", c) for k, c in enumerate(table["categories"])]
    words = [(_words(row), row.content.get("isthing", 1) != 0) for row in categories]
    _refuse_twins(categories, [w for w, _ in words])
    order = sorted(range(len(words)), key=lambda k: not words[k][1])
    ids = [row.get("id", (int, str), "a number") for row in categories]
    class_of = {ids[k]: position for position, k in enumerate(order)}
    if len(class_of) < len(ids):
        raise DataError(f"{path}: two categories have the same id")
    pictures = _pictures(path, path.parent if folder is None else folder, table["images"])
    skips = Skips()
    found: dict[Any, list[Region]] = {key: [] for key in pictures}
    for k, content in enumerate(table["annotations"]):
        row = _Row(f"{path}: annotation row {k}", content)
        key, category = content.get("image_id"), content.get("category_id")
        if key not in pictures or category not in class_of:
            raise DataError(f"{row.where} speaks of no known image or category")
        region = _region(row, class_of[category], pictures[key][1], skips)
        if region is not None:
            found[key].append(region)
    if not any(found.values()):
        raise DataError(f"{path} holds no usable region; left out: {skips}")
    return CocoData(
        pictures=tuple(Picture(*pictures[key], tuple(rs)) for key, rs in found.items() if rs),
        names=tuple(words[k][0][0] for k in order),
        synonyms=tuple(words[k][0][1:] for k in order),
        things=sum(thing for _, thing in words),
        skips=skips,
    )


def _load(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is no COCO file: {error}") from error
    for key in ("images", "annotations", "categories"):
        rows = table.get(key) if isinstance(table, dict) else None
        if not isinstance(rows, list) or not rows:
            raise DataError(f"{path} has no {key}: it is no COCO file of instances, or empty")
        for k, row in enumerate(rows):
            if not isinstance(row, dict):
                raise DataError(f"{path}: row {k} of {key} is {row!r} and no table")
    return table


def _words(row: _Row) -> tuple[str, ...]:
    """Name and synonyms of a category."""
    name = row.get("name", str, "a text").strip()
    synonyms = row.content.get("synonyms", [])
    if not isinstance(synonyms, list) or not all(isinstance(s, str) for s in synonyms):
        raise DataError(f"{row.where}: synonyms is a list of texts, not {synonyms!r}")
    for word in (name, *synonyms):
        if not split_words(word):
            raise DataError(f"{row.where}: {word!r} holds no letter or digit")
    return (name, *synonyms)


def _refuse_twins(rows: list[_Row], words: list[tuple[str, ...]]) -> None:
    """Refuse a word that two categories claim."""
    seen: dict[str, int] = {}
    for k, (row, own) in enumerate(zip(rows, words, strict=True)):
        for word in own:
            first = seen.setdefault(word.casefold(), k)
            if first != k:
                raise DataError(
                    f"{row.where} repeats the name {word!r} of row {first}; rename or merge"
                )


def _pictures(
    path: Path, folder: Path, rows: list[dict[str, Any]]
) -> dict[Any, tuple[Path, tuple[int, int]]]:
    """File and (height, width) of each picture by its id."""
    found: dict[Any, tuple[Path, tuple[int, int]]] = {}
    for k, content in enumerate(rows):
        row = _Row(f"{path}: image row {k}", content)
        key = row.get("id", (int, str), "a number")
        file = folder / row.get("file_name", str, "a text")
        size = (row.get("height", int, "pixels"), row.get("width", int, "pixels"))
        if key in found:
            raise DataError(f"{row.where} repeats the id {key!r}")
        if not file.is_file():
            raise DataError(f"{row.where}: {file} is missing")
        _check_size(row, file, size)
        found[key] = (file, size)
    return found


def _check_size(row: _Row, file: Path, size: tuple[int, int]) -> None:
    """Compare a file's header with what is said of it, as stored or as EXIF turns it."""
    try:
        with Image.open(file) as picture:
            width, height = picture.size
            as_said = size == (height, width)
            # Asked only where it matters: to find it, some formats decode all of the picture.
            if not as_said and size == (width, height):
                as_said = picture.getexif().get(_ORIENTATION) in _TURNED
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{row.where}: {file} is no picture that can be read: {error}") from error
    if not as_said:
        raise DataError(
            f"{row.where}: {file} is {width} x {height} and not {size[1]} x {size[0]} pixels"
        )


def _region(row: _Row, class_id: int, size: tuple[int, int], skips: Skips) -> Region | None:
    """Understand one annotation; None, and counted, where it cannot be learnt from."""
    box = _box(row, size)
    shape = row.content.get("segmentation")
    try:
        fault = _fault(row.content, box, shape, size)
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"{row.where}: no polygons and no run-length code: {error!r}") from error
    if fault is not None:
        skips.add(fault)
        return None
    phrases = row.content.get("phrases", [])
    if not isinstance(phrases, list) or not all(
        isinstance(p, str) and split_words(p) for p in phrases
    ):
        raise DataError(f"{row.where}: phrases is a list of texts with words, not {phrases!r}")
    x, y, w, h = box
    outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return Region(class_id, shape or outline, bool(shape), tuple(phrases))


def _box(row: _Row, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The annotation's x, y, width, height; the whole picture where only a mask is given."""
    content = row.content
    if not content.get("bbox") and not content.get("segmentation"):
        raise DataError(f"{row.where} has neither bbox nor segmentation")
    box = content.get("bbox") or [0, 0, size[1], size[0]]
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
        raise DataError(f"{row.where}: bbox is x, y, width, height, not {box!r}")
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
    """Why a region cannot be learnt from; None where it can."""
    height, width = size
    x, y, w, h = box
    if content.get("iscrowd"):
        return "crowd"
    if w <= 0 or h <= 0:
        return "box without area"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "outside the picture"
    if not shape:
        return None
    return _polygon_fault(shape, size) if isinstance(shape, list) else _code_fault(shape, size)


def _polygon_fault(shape: list[list[float]], size: tuple[int, int]) -> str | None:
    for part in shape:
        if not isinstance(part, list) or len(part) % 2 or not all(_is_number(v) for v in part):
            raise ValueError(f"a polygon is x, y, x, y, ..., not {part!r}")
    if all(len(part) < 6 for part in shape):
        return "outline of fewer than three points"
    shape[:] = [part for part in shape if len(part) >= 6]
    xs, ys = [v for part in shape for v in part[::2]], [v for part in shape for v in part[1::2]]
    if min(xs) >= size[1] or min(ys) >= size[0] or max(xs) <= 0 or max(ys) <= 0:
        return "outside the picture"
    return None if any(_polygon_area(part) > 0 for part in shape) else "mask without area"


def _polygon_area(part: list[float]) -> float:
    """Area of a polygon by the shoelace formula, pixels."""
    xs, ys = part[::2], part[1::2]
    twice = sum(x * ys[k - 1] - xs[k - 1] * y for k, (x, y) in enumerate(zip(xs, ys, strict=True)))
    return abs(twice) / 2


def _code_fault(shape: dict[str, Any], size: tuple[int, int]) -> str | None:
    if tuple(shape["size"]) != size:
        return "mask of another size than its picture"
    counts = shape["counts"]
    if isinstance(counts, list):
        if sum(counts) != size[0] * size[1]:
            return "mask of another size than its picture"
        return None if sum(counts[1::2]) > 0 else "mask without area"
    if not isinstance(counts, str):
        raise TypeError(f"counts is a text or a list of numbers, not {counts!r}")
    return None if int(rle.area(shape)) > 0 else "mask without area"
