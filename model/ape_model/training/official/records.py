"""Millions of annotated images in little memory: one JSON text for each, all in one array."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_model.training.errors import DataError
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ape_model.training.official.recipe import DataRow

__all__ = ["Annotation", "Record", "RowData", "read_row"]

_LEAST_POLYGON = 6  # numbers: three points
_SUFFIXES = ("-other", "-merged", "-stuff")
"""What the official code leaves out of the names of COCO's stuff."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One region of an image."""

    class_id: int
    """Position of its class."""
    box: tuple[float, float, float, float]
    """x, y, width, height, pixels."""
    shape: Any
    """Polygons or a run-length encoding; None where only the box is known."""
    phrase: str = ""
    """Its description; empty where the set has names."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image."""

    path: Path
    size: tuple[int, int]
    """Height and width, pixels."""
    annotations: tuple[Annotation, ...]
    """Without crowds."""
    stuff_map: Path | None = None
    """PNG of its stuff."""


class RowData:
    """The images of a data set.

    Processes that load batches share the array: it has no Python objects whose reference counts
    would make each of them a copy.

    Args:
        row: Of the recipe.
        root: Of all data sets.
        names: Of the classes, stuff last.
        things: Number of classes before the stuff.
        texts: JSON text of each image.
        sizes: (N, 2) int32 height and width of each image.
        shown: (M, 2) int32 pairs of image and class, each once.
    """

    def __init__(
        self,
        row: DataRow,
        root: Path,
        names: Sequence[str],
        things: int,
        texts: Sequence[bytes],
        sizes: NDArray[np.int32],
        shown: NDArray[np.int32],
    ) -> None:
        self.row, self.names, self.things = row, tuple(names), things
        self.sizes, self.shown = sizes, shown
        self._images = root / row.images
        self._stuff = root / row.stuff_maps if row.stuff_maps else None
        self._ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(texts), np.uint8)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._ends)

    def __getitem__(self, index: int) -> Record:
        """Read one image's record.

        Raises:
            DataError: the JSON file next to the image, where its regions are, cannot be read.
        """
        first = self._ends[index - 1] if index else 0
        name, rows = json.loads(self._bytes[first : self._ends[index]].tobytes())
        path = self._images / name
        if not rows and self.row.keep_empty:
            rows = _rows_next_to(path)
        found = tuple(Annotation(k, tuple(box), shape, text) for k, box, shape, text in rows)
        height, width = self.sizes[index].tolist()
        stuff = self._stuff and self._stuff / f"{PurePosixPath(name).stem}.png"
        return Record(path, (height, width), found, stuff)

    def frequencies(self) -> NDArray[np.int64]:
        """(C,) number of images in which each class occurs; 0 for stuff, which isn't counted."""
        return np.bincount(self.shown[:, 1], minlength=len(self.names)).astype(np.int64)


def read_row(row: DataRow, root: Path) -> RowData:
    """Read the file of a data set.

    Args:
        row: Of the recipe.
        root: Of all data sets.

    Raises:
        DataError: the file cannot be read, has other classes than the recipe says, or no image.
    """
    path = root / row.annotations
    table = _load(path)
    try:
        return _index(row, root, table)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is no file of instances in COCO's format: {error!r}") from error


def _index(row: DataRow, root: Path, table: Mapping[str, Any]) -> RowData:
    path = root / row.annotations
    categories = sorted(table["categories"], key=lambda category: category["id"])
    class_of = {category["id"]: k for k, category in enumerate(categories)}
    names = [_name(category) for category in categories]
    things = len(names)
    if row.stuff:
        names += _stuff_names(root / row.stuff)
    if row.prompts == "name" and len(names) != row.classes:
        raise DataError(f"{path} has {len(names)} classes, the recipe {row.classes} of {row.name}")
    by_image: dict[Any, list[list[Any]]] = {}
    for annotation in table["annotations"]:
        if annotation.get("iscrowd", 0):
            continue
        # A phrase has no class: its column among the prompts is that of its region.
        class_id = class_of[annotation["category_id"]] if row.prompts == "name" else 0
        by_image.setdefault(annotation["image_id"], []).append(_packed(annotation, class_id))
    texts: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    shown: list[tuple[int, int]] = []
    for image in sorted(table["images"], key=lambda image: image["id"]):
        rows = by_image.pop(image["id"], [])
        if row.prompts == "phrase":
            rows = [one for one in rows if one[3]]
        if not rows and not row.keep_empty:
            continue
        shown += [(len(texts), k) for k in sorted({one[0] for one in rows})]
        sizes.append((int(image["height"]), int(image["width"])))
        texts.append(json.dumps([_file_name(image, path), rows]).encode())
    if not texts:
        raise DataError(f"{path} has no image to learn from")
    pairs = np.array(shown, np.int32).reshape(-1, 2)
    return RowData(row, root, names, things, texts, np.array(sizes, np.int32), pairs)


def _load(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(table, dict):
        raise DataError(f"{path} is no file of instances in COCO's format")
    return table


def _name(category: Mapping[str, Any]) -> str:
    """The prompt of a class: LVIS asks for the first synonym, not for the name."""
    synonyms = category.get("synonyms")
    return str(synonyms[0] if synonyms else category["name"])


def _stuff_names(path: Path) -> Iterator[str]:
    for category in sorted(_load(path).get("categories", []), key=lambda one: one["id"]):
        if not category["isthing"]:
            name = str(category["name"])
            for suffix in _SUFFIXES:
                name = name.replace(suffix, "")
            yield name


def _packed(annotation: Mapping[str, Any], class_id: int) -> list[Any]:
    """Class, box, shape and phrase of an annotation."""
    shape = annotation.get("segmentation") or None
    if isinstance(shape, list):
        shape = [part for part in shape if len(part) >= _LEAST_POLYGON and len(part) % 2 == 0]
    x, y, width, height = annotation["bbox"]
    return [class_id, [x, y, width, height], shape or None, str(annotation.get("phrase", ""))]


def _file_name(image: Mapping[str, Any], path: Path) -> str:
    """Path of an image in its folder; LVIS has an address instead, whose last two parts it is."""
    name = image.get("file_name") or "/".join(image["coco_url"].split("/")[-2:])
    name = str(name).lstrip("/")  # SA-1B's list has a leading slash
    if ".." in PurePosixPath(name).parts:
        raise DataError(f"{path} names an image outside of its folder: {name!r}")
    return name


def _rows_next_to(path: Path) -> list[list[Any]]:
    """The regions of an image whose annotations are in a file of its own (SA-1B)."""
    own = path.with_suffix(".json")
    if not own.is_file():
        return []
    try:
        return [_packed(annotation, 0) for annotation in _load(own)["annotations"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{own} has no regions in COCO's format: {error!r}") from error
