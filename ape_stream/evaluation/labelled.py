"""Folders of images with a label image each: every pixel says which class is there.

What cannot be judged is left out, named once in a warning, and counted by its reason.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from ape_stream.errors import ConfigError, SourceError, reason_of
from ape_stream.sources.pixels import read_image
from ape_stream.specs import IMAGE_SUFFIXES
from ape_stream.types import Frame, PromptSet
from ape_stream.values.texts import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["LabelledFrame", "LabelledImages", "read_classes"]

_log = logging.getLogger("ape_stream")


def read_classes(path: Path) -> PromptSet:
    """The classes of a JSON file: a list of names, or of prompts {text, stuff, kind, threshold}.

    The position in the list is the value in label images.

    Raises:
        ConfigError: the file cannot be read, or is no such list.
        PromptError: a class cannot be used as a prompt.
    """
    try:
        given = json.loads(read_text(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:  # neither UTF-8 nor JSON, or too deep for it
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(given, list):
        raise ConfigError(f'{path} must be a list of class names, such as ["sky", "road"]')
    classes = PromptSet.of(given)
    if len(classes) != len(given):
        raise ConfigError(f"{path} names a class twice: the position of a name is its value")
    return classes


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrame:
    """An image and the class of each of its pixels."""

    frame: Frame
    """The image."""
    labels: NDArray[np.int64]
    """(H, W): values of the label image; those of no class are not scored."""


@dataclass(slots=True, eq=False)
class LabelledImages:
    """The images of a folder, with labels under the same names in another."""

    images: Path
    """The folder of images, in any depth."""
    labels: Path
    """The folder of label images: `a/b.png` for the image `a/b.jpg`."""
    classes: int
    """Number of classes: values from this on are not scored."""
    skipped: Counter[str] = field(default_factory=Counter)
    """How many images were left out, by reason."""
    unscored: Counter[int] = field(default_factory=Counter)
    """Pixels that were not scored, by their value."""

    def paths(self) -> list[Path]:
        """The images, sorted.

        Raises:
            ConfigError: there is no image, or a folder is not there.
        """
        for folder in (self.images, self.labels):
            if not folder.is_dir():
                raise ConfigError(f"{folder} is no folder")
        inside = self.images.rglob("*")
        found = sorted(path for path in inside if path.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise ConfigError(f"{self.images} holds no images")
        return found

    def __iter__(self) -> Iterator[LabelledFrame]:
        """Read pair by pair; what cannot be judged is skipped."""
        for index, path in enumerate(self.paths()):
            label = (self.labels / path.relative_to(self.images)).with_suffix(".png")
            if not label.is_file():
                self._skip("no label", f"{path} has no label image {label}")
                continue
            try:
                frame = Frame(read_image(path), index, float(index), origin=str(path))
            except SourceError as error:
                self._skip("unreadable image", str(error))
                continue
            try:
                values = _read_labels(label)
            except SourceError as error:
                self._skip("unreadable label", str(error))
                continue
            if values.shape != frame.size:
                self._skip(
                    "label of another size",
                    f"{label} is {values.shape[1]}x{values.shape[0]} pixels, its image"
                    f" {frame.size[1]}x{frame.size[0]}",
                )
                continue
            self._count_unscored(values, label)
            yield LabelledFrame(frame, values)

    def _skip(self, reason: str, message: str) -> None:
        self.skipped[reason] += 1
        _log.warning("left out: %s", message)

    def _count_unscored(self, values: NDArray[np.int64], path: Path) -> None:
        other = values[values >= self.classes]
        for value, pixels in zip(*np.unique(other, return_counts=True), strict=True):
            if int(value) not in self.unscored:
                _log.warning("value %d is no class and is not scored, first in %s", value, path)
            self.unscored[int(value)] += int(pixels)


def _read_labels(path: Path) -> NDArray[np.int64]:
    """A label image, (H, W); a palette's colours are ignored: its indices are the values.

    Raises:
        SourceError: it cannot be read, or has several channels.
    """
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise SourceError(f"cannot read the label image {path}: {reason_of(error)}") from error
    if values.ndim != 2:
        raise SourceError(f"the label image {path} has {values.shape[2]} channels: one is needed")
    return values.astype(np.int64)
