"""Rows of a data set's files, each with its position for messages, and images on disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import ExifTags, Image, UnidentifiedImageError

from ape_stream.datasets.instances import DatasetError
from ape_stream.specs import IMAGE_SUFFIXES
from ape_stream.wire.codecs import jpeg_has_end

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Row", "Rows", "find_image", "is_cut_short", "read_image_size"]

_log = logging.getLogger("ape_stream")
_TURNED = (5, 6, 7, 8)
"""Values of EXIF's tag Orientation that exchange width and height (EXIF 2.3, 4.6.4)."""
_TAIL = 4096
"""Bytes at the end of a file in which its end marker is looked for."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file, with its name for messages."""

    where: str
    content: dict[str, Any]

    def get(self, key: str, kinds: type | tuple[type, ...], what: str) -> Any:
        """Return a field that must be there.

        Raises:
            DatasetError: it is missing or of another type.
        """
        value = self.content.get(key)
        # `True` is an int in Python, and no number in a file.
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise DatasetError(f"{self.where} needs {key!r}, {what}; it is {value!r}")
        return value


@dataclass(frozen=True, slots=True)
class Rows:
    """A data set in the fields of COCO's format, whichever format its files have."""

    images: list[Row]
    """`id`, `file_name`, `height`, `width`."""
    categories: list[Row]
    """`id`, `name`, and optionally `synonyms`, `isthing`."""
    annotations: list[Row]
    """`image_id`, `category_id`, `bbox`, and optionally `segmentation`, `iscrowd`, `phrases`."""


def find_image(folders: Iterable[Path], names: Iterable[str]) -> Path | None:
    """Find an image under one of some names in one of some folders; None where there is none.

    Args:
        folders: The best first.
        names: File names, the best first; one without a known suffix is tried with all.
    """
    known = list(folders)
    for name in names:
        # By string: "a.b" without suffix would lose its ".b" in `with_suffix`.
        endings = ("",) if name.lower().endswith(tuple(IMAGE_SUFFIXES)) else _ENDINGS
        for folder in known:
            for ending in endings:
                path = folder / f"{name}{ending}"
                if path.is_file():
                    return path
    return None


_ENDINGS = tuple(e for suffix in sorted(IMAGE_SUFFIXES) for e in (suffix, suffix.upper()))


def read_image_size(
    path: Path, where: str, given: tuple[int, int] | None = None
) -> tuple[int, int]:
    """Height and width of an image: those given where they fit, as stored or as turned by EXIF.

    Args:
        path: The image.
        where: What names it, for messages.
        given: Height and width in the data set; None where it gives none.

    Raises:
        DatasetError: the file is no image, or has another size.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Read EXIF only if it decides: of a PNG, Pillow decodes all pixels to find it.
            decides = image.format != "PNG" if given is None else given == (width, height)
            turned = decides and image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{where}: {path} cannot be read as an image: {error}") from error
    if given is None:
        return (width, height) if turned else (height, width)
    if given != (height, width) and not turned:
        raise DatasetError(
            f"{where}: {path} is {width} x {height}, not {given[1]} x {given[0]} pixels"
        )
    return given


def is_cut_short(path: Path) -> bool:
    """Whether a JPEG lacks its end; a warning names it then.

    OpenCV would fill it up with grey at every step, and complain without a name.
    """
    if path.suffix.lower() not in {".jpg", ".jpeg"}:
        return False
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL))
        whole = jpeg_has_end(file.read())
    if not whole:
        _log.warning("left out: %s is cut short", path)
    return not whole
