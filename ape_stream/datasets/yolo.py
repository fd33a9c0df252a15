"""YOLO, https://docs.ultralytics.com/datasets/: `data.yaml`, `images/` and `labels/`.

A row of `labels/a.txt` is a class from 0, and a box (centre, width, height) or a polygon in parts
of the image's width and height. An image without such a file, or with an empty one, shows nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ape_stream.datasets.instances import DatasetError
from ape_stream.datasets.rows import Row, Rows, read_image_size
from ape_stream.specs import IMAGE_SUFFIXES
from ape_stream.values.texts import read_text

__all__ = ["YoloSet", "open_yolo", "read_yolo"]

_OVER = 1.01
"""Largest coordinate that passes, as in Ultralytics: tools round, and boxes reach over the rim."""


@dataclass(frozen=True, slots=True)
class YoloSet:
    """What `data.yaml` says."""

    path: Path
    """The file, or the folder where there is none."""
    root: Path
    """Folder that the splits are relative to."""
    names: tuple[str, ...]
    """Names of the classes, from 0."""
    splits: dict[str, list[Path]]
    """Folders of images, or lists of images (.txt), of each split."""


def open_yolo(path: Path) -> YoloSet:
    """Read `data.yaml`, or what stands for it: `images/`, `labels/` and `classes.txt`.

    Raises:
        DatasetError: it cannot be read, or lacks names or images.
    """
    if path.is_dir():
        classes = next((p for p in _class_lists(path) if p.is_file()), None)
        if classes is None:
            raise DatasetError(f"{path} has neither data.yaml nor classes.txt: names are missing")
        names = tuple(line.strip() for line in _text(classes).splitlines() if line.strip())
        inside = path / "images"
        splits = {s: [inside / s] for s in ("train", "val", "test") if (inside / s).is_dir()}
        return YoloSet(path, path, names, splits or {"train": [inside]})
    try:
        table = yaml.safe_load(_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise DatasetError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict):
        raise DatasetError(f"{path} is no data set: it has no keys such as train and names")
    root = _root(path, table.get("path"))
    splits = {s: _folders(root, table[s], f"{path}: {s}") for s in _SPLITS if table.get(s)}
    if "valid" in splits:  # as some tools call it
        splits.setdefault("val", splits.pop("valid"))
    if not splits:
        raise DatasetError(f"{path} names no images: it has none of train, val and test")
    return YoloSet(path, root, _names(path, table), splits)


_SPLITS = ("train", "val", "valid", "test")


def _class_lists(folder: Path) -> tuple[Path, ...]:
    return folder / "classes.txt", folder / "labels" / "classes.txt", folder / "obj.names"


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error


def _root(path: Path, given: Any) -> Path:
    """Folder that the splits are relative to: `path`, where it is here, else that of the file."""
    root = path.parent / str(given) if given else path.parent
    # Ultralytics looks for relative paths in a folder of its own: copies of a set have them wrong.
    return root if root.is_dir() else path.parent


def _folders(root: Path, given: Any, where: str) -> list[Path]:
    """Folders, or lists of images, of one split."""
    found = []
    for one in given if isinstance(given, list) else [given]:
        text = str(one)
        # "../train/images" means "train/images" in sets that were moved (as in Ultralytics).
        tries = (root / text, root / text.removeprefix("../"))
        path = next((p for p in tries if p.exists()), None)
        if path is None:
            raise DatasetError(f"{where}: {tries[-1]} is missing")
        found.append(path)
    return found


def _names(path: Path, table: dict[str, Any]) -> tuple[str, ...]:
    names = table.get("names")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DatasetError(f"{path}: names count from 0 without a gap, not {list(names)}")
        names = [names[k] for k in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{path} needs names, a list of texts; it has {names!r}")
    count = table.get("nc")
    if count is not None and count != len(names):
        raise DatasetError(f"{path}: nc is {count!r}, and there are {len(names)} names")
    return tuple(str(name) for name in names)


def read_yolo(data: YoloSet, split: str, images: Path | None = None) -> Rows:
    """Read a split as rows of COCO's fields.

    Args:
        data: What `data.yaml` says.
        split: One of its splits.
        images: Folder of the images, instead of those that the split names.

    Raises:
        DatasetError: there are no images or labels, or a row is wrong; the message names it.
    """
    categories = [
        Row(f"{data.path}: names: {k}", {"id": k, "name": name})
        for k, name in enumerate(data.names)
    ]
    rows = Rows([], categories, [])
    sources = data.splits[split] if images is None else [images]
    paths = [path for source in sources for path in _images(source, data.root)]
    if not paths:
        raise DatasetError(f"{data.path}: {sources[0]} holds no images")
    for key, path in enumerate(paths):
        height, width = read_image_size(path, str(data.path))
        content = {"id": key, "file_name": str(path), "height": height, "width": width}
        rows.images.append(Row(str(path), content))
        _read_labels(rows, key, _label_path(path), (height, width), len(data.names))
    if not rows.annotations:
        raise DatasetError(
            f"{data.path}: none of {len(paths)} images has a label, such as {_label_path(paths[0])}"
        )
    return rows


def _images(source: Path, root: Path) -> list[Path]:
    """The images of a folder, in any depth, or of a list."""
    if source.is_dir():
        inside = source.rglob("*")
        return sorted(p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    found = []
    for line in filter(None, map(str.strip, _text(source).splitlines())):
        # "./" begins a path that counts from the list.
        path = source.parent / line[2:] if line.startswith("./") else root / line
        if not path.is_file():
            raise DatasetError(f"{source}: {path} is missing")
        found.append(path)
    return found


def _label_path(image: Path) -> Path:
    """`labels/a.txt` of `images/a.jpg`; next to the image where it lies in no such folder."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read_labels(rows: Rows, key: int, path: Path, size: tuple[int, int], classes: int) -> None:
    """Append the regions of one image."""
    if not path.is_file():
        return
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        class_id, numbers = _values(line, where)
        if class_id >= classes:
            raise DatasetError(f"{where}: class {class_id} of {classes} names: they count from 0")
        content = {"image_id": key, "category_id": class_id} | _shape(numbers, size)
        rows.annotations.append(Row(where, content))


def _values(line: str, where: str) -> tuple[int, list[float]]:
    """Class and coordinates of a row."""
    first, *others = line.split()
    try:
        numbers = [float(text) for text in others]
    except ValueError:
        numbers = []
    if not first.isdecimal() or not numbers or not all(map(math.isfinite, numbers)):
        raise DatasetError(f"{where}: a row is a class and numbers, not {line.strip()!r:.80}")
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise DatasetError(
            f"{where}: {len(numbers)} numbers after the class; a box has 4, a polygon x and y of"
            " three points or more"
        )
    if not all(-(_OVER - 1) <= value <= _OVER for value in numbers):
        raise DatasetError(f"{where}: coordinates are parts of the image, 0..1, not pixels")
    return int(first), numbers


def _shape(numbers: list[float], size: tuple[int, int]) -> dict[str, Any]:
    """Box, or polygon and the box around it, in pixels."""
    sides = (size[1], size[0])
    values = [value * sides[k % 2] for k, value in enumerate(numbers)]
    if len(values) == 4:
        x, y, w, h = values
        return {"bbox": [x - w / 2, y - h / 2, w, h]}
    xs, ys = values[::2], values[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {"bbox": box, "segmentation": [values]}
