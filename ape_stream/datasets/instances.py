"""What the readers of data sets return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ape_stream.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DatasetError", "InstanceData", "InstanceImage", "Region", "Shape", "Skips"]

Shape = dict[str, Any] | list[list[float]]
"""A run-length encoding, or polygons."""


class DatasetError(ConfigError):
    """A data set cannot be used; the message names the file and the row."""


@dataclass(slots=True)
class Skips:
    """Number of annotations and images left out, by cause."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, cause: str, count: int = 1) -> None:
        """Count one annotation or image, or several."""
        if count:
            self.counts[cause] = self.counts.get(cause, 0) + count

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
    """False where `shape` is only a box: nothing is known of what shows inside it."""
    phrases: tuple[str, ...] = ()
    """Descriptions of it, from the field `phrases` (ours, not COCO's)."""


@dataclass(frozen=True, slots=True)
class InstanceImage:
    """An image file and the regions in it."""

    path: Path
    size: tuple[int, int]
    """Height and width, pixels."""
    regions: tuple[Region, ...]
    """In the order of the file; empty where nothing is labelled."""
    ignored: tuple[Region, ...] = ()
    """Regions that need not be found: crowds (COCO), difficult objects (VOC)."""


@dataclass(frozen=True, slots=True, eq=False)
class InstanceData:
    """A checked data set."""

    images: tuple[InstanceImage, ...]
    """Every file exists and has the size that the data set gives."""
    names: tuple[str, ...]
    """Main name of each class, things first, then stuffs."""
    synonyms: tuple[tuple[str, ...], ...]
    """Other names of each class, from a category's field `synonyms` (as in LVIS)."""
    things: int
    """Number of thing classes; a category with `isthing` 0, as in panoptic files, is stuff."""
    skips: Skips
    """What was left out."""

    @property
    def labelled(self) -> tuple[InstanceImage, ...]:
        """The images with at least one region."""
        return tuple(image for image in self.images if image.regions)

    def frequencies(self) -> list[int]:
        """Return the number of images in which each class occurs."""
        counts = [0] * len(self.names)
        for image in self.images:
            for class_id in {region.class_id for region in image.regions}:
                counts[class_id] += 1
        return counts
