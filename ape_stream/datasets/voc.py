"""Pascal VOC, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html.

A folder with an XML for each image, in any depth: those of VOC itself (`Annotations/`,
`JPEGImages/`), of LabelImg (next to the images) and of others. Boxes are whole pixels from 1, both
ends inside. Objects marked as difficult need not be found.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from ape_stream.datasets.instances import DatasetError
from ape_stream.datasets.rows import Row, Rows, find_image, read_image_size
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from xml.etree.ElementTree import Element

__all__ = ["read_voc", "voc_lists"]

_IMAGE_FOLDERS = ("JPEGImages", "images", "Images")


def voc_lists(folder: Path) -> dict[str, Path]:
    """The lists of names in `ImageSets/Main`, by split: train, val, test, trainval."""
    splits = ("train", "val", "test", "trainval")
    paths = {split: folder / "ImageSets" / "Main" / f"{split}.txt" for split in splits}
    return {split: path for split, path in paths.items() if path.is_file()}


def read_voc(folder: Path, images: Path | None, names: Path | None = None) -> Rows:
    """Read a folder of XML as rows of COCO's fields.

    Args:
        folder: With the XML, in any depth.
        images: Folder of the images; None: next to the XML, or in `JPEGImages` or `images`.
        names: A list of `ImageSets/Main`: only these are read; None: all.

    Raises:
        DatasetError: a file cannot be read, an image is missing, or an object has no name or box.
    """
    rows = Rows([], [], [])
    ids: dict[str, int] = {}
    for key, path in enumerate(_paths(folder, names)):
        root = _parse(path)
        file = _image(path, root, folder, images)
        given = _size(root, str(path))
        height, width = read_image_size(file, str(path), given)
        content = {"id": key, "file_name": str(file), "height": height, "width": width}
        rows.images.append(Row(str(path), content))
        for number, found in enumerate(root.iter("object"), start=1):
            where = f"{path}: object {number}"
            name = (found.findtext("name") or "").strip()
            if not name:
                raise DatasetError(f"{where} has no name")
            if name not in ids:
                ids[name] = len(ids)
                rows.categories.append(Row(where, {"id": ids[name], "name": name}))
            difficult = (found.findtext("difficult") or "").strip() == "1"
            content = {"image_id": key, "category_id": ids[name], "bbox": _box(found, where)}
            rows.annotations.append(Row(where, content | {"difficult": difficult}))
    if not rows.annotations:
        raise DatasetError(f"{folder}: none of its {len(rows.images)} XML files has an object")
    return rows


def _paths(folder: Path, names: Path | None) -> list[Path]:
    if names is None:
        return sorted(path for path in folder.rglob("*.xml") if path.is_file())
    paths = [folder / "Annotations" / f"{name}.xml" for name in _listed(names)]
    for path in paths:
        if not path.is_file():
            raise DatasetError(f"{names} names {path.stem}, and {path} is missing")
    return paths


def _listed(names: Path) -> Iterable[str]:
    """The first word of each line: lists of one class have a 1 or -1 after it."""
    return [line.split()[0] for line in read_text(names).splitlines() if line.strip()]


def _parse(path: Path) -> Element:
    try:
        root: Element = parse(path).getroot()
    except (OSError, ParseError, ValueError, DefusedXmlException) as error:
        empty = " (it is empty)" if path.stat().st_size == 0 else ""
        raise DatasetError(f"{path} is no XML{empty}: {error}") from error
    if root.tag != "annotation":
        raise DatasetError(f"{path} is no Pascal VOC: it begins with <{root.tag}>")
    return root


def _image(path: Path, root: Element, folder: Path, images: Path | None) -> Path:
    """The image of an XML: under the name in it, else under that of the XML."""
    above = path.parent.parent
    near = (path.parent, *(above / name for name in _IMAGE_FOLDERS), folder, above)
    given = (root.findtext("filename") or "").strip().replace("\\", "/").rsplit("/", 1)[-1]
    names = [given, path.stem] if given else [path.stem]
    file = find_image(near if images is None else (images, *near), names)
    if file is None:
        raise DatasetError(f"{path}: its image {given or path.stem} is missing; --images names it")
    return file


def _size(root: Element, where: str) -> tuple[int, int] | None:
    """Height and width; None where the file gives none (0 in some tools)."""
    sides = [root.findtext(f"size/{side}") for side in ("height", "width")]
    if None in sides:
        return None
    height, width = (_number(side, f"{where}: size") for side in sides)
    return (round(height), round(width)) if height > 0 and width > 0 else None


def _box(found: Element, where: str) -> list[float]:
    """X, y, width, height from the whole pixels that VOC counts from 1."""
    keys = ("xmin", "ymin", "xmax", "ymax")
    x1, y1, x2, y2 = (_number(found.findtext(f"bndbox/{k}"), f"{where}: {k}") for k in keys)
    return [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]


def _number(text: Any, what: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DatasetError(f"{what} is a number, not {text!r}")
    return value
