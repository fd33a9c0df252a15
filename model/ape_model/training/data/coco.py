"""A user's own images: COCO instances, every row checked, every fault reported or counted."""

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

__all__ = ["CocoData", "CocoImage", "Region", "Shape", "Skips", "read_coco"]

Shape = dict[str, Any] | list[list[float]]
"""A run-length encoding, or polygons."""
_TURNED = (5, 6, 7, 8)
"""Values of EXIF's tag Orientation that exchange width and height (EXIF 2.3, 4.6.4)."""
_ORIENTATION = 0x0112


@dataclass(slots=True)
class Skips:
    """Number of annotations left out, by cause."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, cause: str) -> None:
        """Count one annotation."""
        self.counts[cause] = self.counts.get(cause, 0) + 1

    def __str__(self) -> str:
        """Return the counts as "3 crowd, 1 box without area"; "nothing" for none."""
        return ", ".join(f"{count} {cause}" for cause, count in self.counts.items()) or "nothing"


@dataclass(frozen=True, slots=True)
class Region:
    """One usable annotation."""

    class_id: int
    shape: Shape
    """Its mask; the outline of its box where it has none."""
    masked: bool
    """False where `shape` is only a box, which gets no mask loss."""
    phrases: tuple[str, ...]
    """Descriptions of it, from the field `phrases` (ours, not COCO's)."""


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image file and the regions in it."""

    path: Path
    size: tuple[int, int]
    """Height and width, pixels."""
    regions: tuple[Region, ...]
    """At least one."""


@dataclass(frozen=True, slots=True, eq=False)
class CocoData:
    """A checked data set."""

    images: tuple[CocoImage, ...]
    """Images with regions; every file exists and has the size that the COCO file gives."""
    names: tuple[str, ...]
    """Main name of each class, things first, then stuffs."""
    synonyms: tuple[tuple[str, ...], ...]
    """Other names of each class, from a category's field `synonyms` (as in LVIS)."""
    things: int
    """Number of thing classes; a category with `isthing` 0, as in panoptic files, is stuff."""
    skips: Skips
    """What was left out."""

    def frequencies(self) -> list[int]:
        """Return the number of images in which each class occurs."""
        counts = [0] * len(self.names)
        for image in self.images:
            for class_id in {region.class_id for region in image.regions}:
                counts[class_id] += 1
        return counts


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the file, with its name for messages."""

    where: str
    content: dict[str, Any]

    def get(self, key: str, kinds: type | tuple[type, ...], what: str) -> Any:
        """Return a field that must be there.

        Raises:
            DataError: it is missing or of another type.
        """
        value = self.content.get(key)
        # `True` is an int in Python, and no number in a file.
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise DataError(f"{self.where} needs {key!r}, {what}; it is {value!r}")
        return value


def read_coco(path: Path, folder: Path | None = None) -> CocoData:
    """Read instances in COCO's format and check every row.

    A row that cannot be parsed is an error. A region that can be parsed but not be trained on (a
    crowd, outside the image, no area) is counted and left out.

    Args:
        path: the JSON file.
        folder: folder of the images; None: that of the file.

    Raises:
        DataError: the file cannot be read or holds no usable region, an image is missing, or two
            categories share a name; the message names the file and the row.
    """
    table = _load(path)
    categories = [_Row(f"{path}: category row {k}", c) for k, c in enumerate(table["categories"])]
    words = [(_words(row), row.content.get("isthing", 1) != 0) for row in categories]
    _refuse_shared_names(categories, [w for w, _ in words])
    # Class ids are ours, things before stuffs; a file's own ids may be any numbers.
    order = sorted(range(len(words)), key=lambda k: not words[k][1])
    ids = [row.get("id", (int, str), "a number") for row in categories]
    class_of = {ids[k]: position for position, k in enumerate(order)}
    if len(class_of) < len(ids):
        raise DataError(f"{path}: two categories have the same id")
    images = _images(path, path.parent if folder is None else folder, table["images"])
    skips = Skips()
    found: dict[Any, list[Region]] = {key: [] for key in images}
    for k, content in enumerate(table["annotations"]):
        row = _Row(f"{path}: annotation row {k}", content)
        key, category = content.get("image_id"), content.get("category_id")
        if key not in images or category not in class_of:
            raise DataError(f"{row.where} refers to an image or category that is not in the file")
        region = _region(row, class_of[category], images[key][1], skips)
        if region is not None:
            found[key].append(region)
    if not any(found.values()):
        raise DataError(f"{path} holds no usable region; left out: {skips}")
    return CocoData(
        images=tuple(CocoImage(*images[key], tuple(rs)) for key, rs in found.items() if rs),
        names=tuple(words[k][0][0] for k in order),
        synonyms=tuple(words[k][0][1:] for k in order),
        things=sum(thing for _, thing in words),
        skips=skips,
    )


def _load(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
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


def _refuse_shared_names(rows: list[_Row], words: list[tuple[str, ...]]) -> None:
    """Refuse a name that two categories share."""
    seen: dict[str, int] = {}
    for k, (row, own) in enumerate(zip(rows, words, strict=True)):
        for word in own:
            first = seen.setdefault(word.casefold(), k)
            if first != k:
                raise DataError(
                    f"{row.where} repeats the name {word!r} of row {first}; rename or merge"
                )


def _images(
    path: Path, folder: Path, rows: list[dict[str, Any]]
) -> dict[Any, tuple[Path, tuple[int, int]]]:
    """File and (height, width) of each image by its id."""
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
    """Compare a file's size with the COCO file's, as stored or as rotated by EXIF."""
    try:
        with Image.open(file) as image:
            width, height = image.size
            fits = size == (height, width)
            # Read EXIF only if it decides: some formats decode the whole image to find it.
            if not fits and size == (width, height):
                fits = image.getexif().get(_ORIENTATION) in _TURNED
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{row.where}: {file} cannot be read as an image: {error}") from error
    if not fits:
        raise DataError(
            f"{row.where}: {file} is {width} x {height}, not {size[1]} x {size[0]} pixels"
        )


def _region(row: _Row, class_id: int, size: tuple[int, int], skips: Skips) -> Region | None:
    """Parse one annotation; None, and counted, where it cannot be trained on."""
    box = _box(row, size)
    shape = row.content.get("segmentation")
    # pycocotools raises these on a shape that it cannot parse.
    try:
        fault = _fault(row.content, box, shape, size)
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(
            f"{row.where}: no polygons and no run-length encoding: {error!r}"
        ) from error
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
    """Return x, y, width, height; the whole image where the annotation has a mask alone."""
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
    """Return why a region cannot be trained on, None where it can."""
    height, width = size
    x, y, w, h = box
    if content.get("iscrowd"):
        return "crowd"
    if w <= 0 or h <= 0:
        return "box without area"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "outside the image"
    if not shape:
        return None
    return _polygon_fault(shape, size) if isinstance(shape, list) else _code_fault(shape, size)


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
