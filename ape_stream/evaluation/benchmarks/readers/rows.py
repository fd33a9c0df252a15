"""Rows of annotation files of any size: read one at a time, kept as arrays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image
from pycocotools import mask as coco

from ape_stream.errors import SourceError
from ape_stream.evaluation.benchmarks.scoring.records import MaskCodes, TrueRegions
from ape_stream.optional import library
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["RegionRows", "mask_code", "read_json", "rows_of", "strings", "upright_size"]

_SIDEWAYS = frozenset((5, 6, 7, 8))
"""EXIF orientations that swap height and width (Exif 2.32, 4.6.4)."""


def rows_of(path: Path, key: str) -> Iterator[dict[str, Any]]:
    """The objects of an array of a JSON file, such as "annotations", one at a time.

    Args:
        path: The file.
        key: Of the array in the table that the file is; empty where the file is the array.

    Raises:
        SourceError: the file cannot be read, or is no JSON.
        PluginError: ijson is not installed.
    """
    ijson = library("ijson", "eval")
    try:
        with path.open("rb") as file:
            yield from ijson.items(file, f"{key}.item" if key else "item", use_float=True)
    except (OSError, ijson.JSONError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error


def read_json(path: Path) -> Any:
    """A small JSON file as a whole.

    Raises:
        SourceError: the file cannot be read, or is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error


def mask_code(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """COCO's run-length code of a mask.

    Args:
        segmentation: A list of polygons, run lengths as numbers, or run lengths as text.
        size: Height and width of the image.
    """
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        packed = not isinstance(counts, list)
        return segmentation if packed else dict(coco.frPyObjects(segmentation, *size))
    # A polygon needs three corners. Without any, the mask is empty.
    polygons = [one for one in segmentation or () if len(one) >= 6]
    if not polygons:
        return dict(coco.encode(np.zeros((*size, 1), np.uint8, order="F"))[0])
    return dict(coco.merge(coco.frPyObjects(polygons, *size)))


class RegionRows:
    """Gathers annotated regions.

    Args:
        masks: Whether regions have masks.
    """

    def __init__(self, *, masks: bool) -> None:
        self._image_ids: list[int] = []
        self._class_ids: list[int] = []
        self._numbers: list[float] = []
        self._groups: list[bool] = []
        self._codes: list[dict[str, Any]] | None = [] if masks else None

    def add(
        self,
        image_id: int,
        class_id: int,
        xywh: Sequence[float],
        *,
        area: float | None = None,
        group: bool = False,
        code: Mapping[str, Any] | None = None,
    ) -> None:
        """Take one; without an area, that of its box counts."""
        self._image_ids.append(image_id)
        self._class_ids.append(class_id)
        self._numbers += (*xywh, xywh[2] * xywh[3] if area is None else area)
        self._groups.append(group)
        if self._codes is not None and code is not None:
            self._codes.append(dict(code))

    def regions(self) -> TrueRegions:
        """All of them."""
        numbers = np.array(self._numbers, np.float64).reshape(-1, 5)
        return TrueRegions(
            image_ids=np.array(self._image_ids, np.int64),
            class_ids=np.array(self._class_ids, np.int64),
            xywh=numbers[:, :4],
            areas=numbers[:, 4],
            groups=np.array(self._groups, np.bool_),
            masks=None if self._codes is None else MaskCodes.of(self._codes),
        )


def upright_size(path: Path) -> tuple[int, int]:
    """Height and width of an image, turned upright, from its head.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
    except (OSError, ValueError, SyntaxError) as error:
        raise SourceError(f"cannot read the image {path}: {error}") from error
    return (width, height) if turned else (height, width)


def strings(path: Path) -> Iterable[str]:
    """The lines of a text file that are not empty.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
