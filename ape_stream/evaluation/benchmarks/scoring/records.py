"""What scorers read and return: plain arrays, so that LVIS fits into the memory of a laptop.

Boxes are x, y, width, height as in COCO's files: a width that is computed from two corners differs
in its last digit, and with it an IoU that lies on a threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pycocotools import mask as coco

from ape_stream.masks import encode_rle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ape_stream.types import Instances

__all__ = [
    "Classes",
    "Federation",
    "FoundRegions",
    "Images",
    "MaskCodes",
    "RegionTruth",
    "Scores",
    "TrueRegions",
    "mask_code",
    "mean_percent",
    "percent",
]


def mask_code(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """The run-length text of a segmentation as COCO's files have it, drawn by COCO's own rules.

    Args:
        segmentation: A list of polygons x1 y1 x2 y2 ..., or a run-length code with its counts as
            numbers or as text.
        height: Of the image, pixels.
        width: Of the image, pixels.
    """
    code: dict[str, Any] = segmentation
    if isinstance(segmentation, list):
        code = coco.merge(coco.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        code = coco.frPyObjects(segmentation, height, width)
    return code


@dataclass(frozen=True, slots=True, eq=False)
class MaskCodes:
    """N masks as COCO's run-length text, in one row of bytes."""

    text: NDArray[np.uint8]
    """(B,) the texts of all masks, one after the other."""
    ends: NDArray[np.int64]
    """(N,) where each text ends."""
    sizes: NDArray[np.int32]
    """(N, 2) height and width of each mask's image, pixels."""

    @classmethod
    def of(cls, codes: Sequence[Mapping[str, Any]]) -> Self:
        """Masks given as `{"size": [H, W], "counts": bytes or str}`."""
        texts = [
            c["counts"].encode() if isinstance(c["counts"], str) else c["counts"] for c in codes
        ]
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        sizes = np.array([c["size"] for c in codes], np.int32).reshape(len(codes), 2)
        return cls(np.frombuffer(b"".join(texts), np.uint8), ends, sizes)

    @classmethod
    def join(cls, parts: Sequence[MaskCodes]) -> Self:
        """The masks of all parts in their order; at least one part."""
        before = np.cumsum([0] + [len(part.text) for part in parts[:-1]])
        return cls(
            np.concatenate([part.text for part in parts]),
            np.concatenate([part.ends + shift for part, shift in zip(parts, before, strict=True)]),
            np.concatenate([part.sizes for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, k: int) -> dict[str, Any]:
        """Mask k as `{"size": [H, W], "counts": bytes}`."""
        start = self.ends[k - 1] if k else 0
        height, width = self.sizes[k].tolist()
        return {"size": [height, width], "counts": self.text[start : self.ends[k]].tobytes()}

    def select(self, chosen: NDArray[Any]) -> Self:
        """The masks at these positions, or where a (N,) bool array is true."""
        rows = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        starts = np.where(rows > 0, self.ends[rows - 1], 0) if len(rows) else rows
        lengths = self.ends[rows] - starts
        ends = np.cumsum(lengths, dtype=np.int64)
        # Position of every byte: where its text begins, and how far it lies behind that.
        shift = starts - (ends - lengths)
        text = self.text[np.repeat(shift, lengths) + np.arange(int(lengths.sum()))]
        return type(self)(text, ends, self.sizes[rows])

    def areas(self) -> NDArray[np.int64]:
        """(N,) pixels of each mask."""
        # One at a time: of more than 255 at once, the library's areas are wrong.
        return np.array([int(coco.area(self[k])) for k in range(len(self))], np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """The images of a task."""

    ids: NDArray[np.int64]
    """(I,) each once. Among equal scores, detections of a lower id come first."""
    sizes: NDArray[np.int32]
    """(I, 2) height and width, pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """The classes of a task."""

    ids: NDArray[np.int64]
    """(C,) each once, as annotations and predictions name them."""
    names: tuple[str, ...]
    """(C)."""
    frequencies: tuple[str, ...] | None = None
    """(C) LVIS: "r", "c" or "f" for rare, common and frequent in training."""


@dataclass(frozen=True, slots=True, eq=False)
class TrueRegions:
    """N annotated regions."""

    image_ids: NDArray[np.int64]
    """(N,)."""
    class_ids: NDArray[np.int64]
    """(N,)."""
    xywh: NDArray[np.float64]
    """(N, 4) left, top, width, height in pixels, as the file has them."""
    areas: NDArray[np.float64]
    """(N,) pixels, as the file has them: they say which are small, medium and large."""
    groups: NDArray[np.bool_]
    """(N,) one region for many: crowds of COCO, group boxes of OpenImages."""
    masks: MaskCodes | None = None
    """N masks, or None where only boxes were annotated."""

    def __len__(self) -> int:
        return len(self.image_ids)

    def select(self, chosen: NDArray[Any]) -> Self:
        """The regions at these positions, or where a (N,) bool array is true."""
        columns: dict[str, Any] = {
            name: getattr(self, name)[chosen] for name in self.__slots__[:-1]
        }
        return type(self)(
            **columns, masks=None if self.masks is None else self.masks.select(chosen)
        )


@dataclass(frozen=True, slots=True, eq=False)
class FoundRegions:
    """N detections. Those of one image keep their order: among equal scores, the first counts."""

    image_ids: NDArray[np.int64]
    """(N,)."""
    class_ids: NDArray[np.int32]
    """(N,) as in `Classes.ids`."""
    xywh: NDArray[np.float32]
    """(N, 4) left, top, width, height in pixels."""
    scores: NDArray[np.float32]
    """(N,)."""
    masks: MaskCodes | None = None
    """N masks, or None where the model makes boxes only."""

    def __len__(self) -> int:
        return len(self.image_ids)

    @classmethod
    def of(cls, image_id: int, found: Instances, class_ids: NDArray[np.integer]) -> Self:
        """What a perceiver found in one image.

        Args:
            image_id: As in `Images.ids`.
            found: The regions; their widths are differences of float32, as in the code of the
                paper.
            class_ids: (P,) the class that each prompt id means.
        """
        corner, far = found.boxes[:, :2], found.boxes[:, 2:]
        return cls(
            image_ids=np.full(len(found.scores), image_id, np.int64),
            class_ids=class_ids[found.prompt_ids].astype(np.int32),
            xywh=np.concatenate([corner, far - corner], 1),
            scores=found.scores,
            masks=None
            if found.masks is None
            else MaskCodes.of([encode_rle(mask, found.size) for mask in found.masks]),
        )

    @classmethod
    def join(cls, parts: Sequence[FoundRegions]) -> Self:
        """The detections of all parts in their order; at least one part."""
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in cls.__slots__[:-1]
        }
        masks = [part.masks for part in parts if part.masks is not None]
        return cls(**columns, masks=MaskCodes.join(masks) if len(masks) == len(parts) else None)

    def select(self, chosen: NDArray[Any]) -> Self:
        """The detections at these positions, or where a (N,) bool array is true."""
        columns: dict[str, Any] = {
            name: getattr(self, name)[chosen] for name in self.__slots__[:-1]
        }
        return type(self)(
            **columns, masks=None if self.masks is None else self.masks.select(chosen)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Federation:
    """What is known about an image beyond its regions: classes verified for that image only."""

    negative: NDArray[np.int64]
    """(M, 2) image id, class id: verified to be absent."""
    not_exhaustive: NDArray[np.int64]
    """(M, 2) image id, class id: present, but not every instance is annotated (LVIS)."""
    positive: NDArray[np.int64]
    """(M, 2) image id, class id: verified to be present, with or without a region (OpenImages)."""


@dataclass(frozen=True, slots=True, eq=False)
class RegionTruth:
    """The annotated regions of a task."""

    images: Images
    """Every image that is scored, with regions or without."""
    classes: Classes
    """Every class that is scored, with regions or without."""
    regions: TrueRegions
    """The regions."""
    federation: Federation | None = None
    """For LVIS and OpenImages; elsewhere every class is judged on every image."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The figures of one task, ready for JSON: in percent; None where there is nothing to judge."""

    figures: dict[str, float | None]
    """By the name that the benchmark gives them, such as "box/AP"."""
    by_class: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """The same figures for each class, set or split where they have some."""
    notes: tuple[str, ...] = ()
    """What a reader of the figures must know, such as predictions that are missing."""


def percent(value: float) -> float | None:
    """A share in percent; None for NaN."""
    return None if math.isnan(value) else 100 * float(value)


def mean_percent(values: NDArray[Any]) -> float | None:
    """The mean of (N,) shares, or of what is right, in percent; None without any."""
    return percent(float(values.mean())) if len(values) else None
