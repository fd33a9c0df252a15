"""How well do semantic maps agree with label images? Confusion, IoU, accuracy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream.errors import ConfigError
from ape_stream.protocols import PaintsMaps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ape_stream.evaluation.labelled import LabelledImages
    from ape_stream.protocols import Perceiver
    from ape_stream.types import PromptSet

__all__ = ["Confusion", "judge_semantic"]


@dataclass(slots=True, eq=False)
class Confusion:
    """How often a pixel of each class was given to each class."""

    classes: int
    """Number of them, C."""
    counts: NDArray[np.int64] = field(init=False)
    """(C, C + 1) pixels: row = true class, column = class of the map, the last: none."""

    def __post_init__(self) -> None:
        """Begin with no pixel."""
        self.counts = np.zeros((self.classes, self.classes + 1), np.int64)

    def add(self, truth: NDArray[Any], found: NDArray[Any]) -> None:
        """Count the pixels of one image.

        Args:
            truth: (H, W) classes from 0; values of no class are not scored.
            found: (H, W) of a semantic map: 0 = nothing, k = class k-1.

        Raises:
            ValueError: the map has another size, or a value of no class.
        """
        if truth.shape != found.shape or found.max(initial=0) > self.classes:
            raise ValueError(f"a {truth.shape} map of values up to {self.classes} is needed")
        scored = (truth >= 0) & (truth < self.classes)
        # Nothing (0) becomes the last column.
        columns = np.where(found == 0, self.classes, found.astype(np.int64) - 1)
        pairs = truth[scored] * (self.classes + 1) + columns[scored]
        self.counts += np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape)

    def merge(self, other: Confusion) -> None:
        """Add the pixels of a confusion of the same classes."""
        self.counts += other.counts

    @property
    def iou(self) -> NDArray[np.float64]:
        """(C,) intersection over union; NaN for a class that the truth does not hold."""
        union = self.counts.sum(1) + self.counts[:, : self.classes].sum(0) - np.diag(self.counts)
        return self._share_of(union)

    @property
    def recall(self) -> NDArray[np.float64]:
        """(C,) share of a class's pixels that have it in the map; NaN as for `iou`."""
        return self._share_of(self.counts.sum(1))

    def _share_of(self, pixels: NDArray[np.int64]) -> NDArray[np.float64]:
        """(C,) right pixels among so many, of the classes that the truth holds."""
        share = np.full(self.classes, np.nan)
        np.divide(np.diag(self.counts), pixels, out=share, where=self.counts.sum(1) > 0)
        return share

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that the truth holds; NaN without any.

        A class that is only found has no IoU of its own, as in the evaluation code of the paper;
        it lowers that of the classes whose pixels it takes.
        """
        iou = self.iou
        return float(np.nanmean(iou)) if not np.isnan(iou).all() else float("nan")

    @property
    def accuracy(self) -> float:
        """Share of scored pixels that have their class; NaN without any."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts[:, : self.classes])) / total if total else float("nan")

    def report(self, names: Sequence[str]) -> dict[str, Any]:
        """All figures, ready for JSON: a figure without a pixel is None."""
        return {
            "miou": _or_none(self.miou),
            "pixel_accuracy": _or_none(self.accuracy),
            "iou": {
                name: _or_none(value) for name, value in zip(names, self.iou.tolist(), strict=True)
            },
            "confusion": self.counts.tolist(),
        }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


def judge_semantic(
    perceiver: Perceiver,
    classes: PromptSet,
    images: LabelledImages,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Judge the semantic maps of a model on labelled images, one image a call.

    Args:
        perceiver: The model.
        classes: Their positions are the values of label images.
        images: What it is judged on.
        progress: Called with the number of images judged so far.

    Returns:
        Figures, ready for JSON.

    Raises:
        ConfigError: the model makes no semantic maps, or nothing could be judged.
    """
    if not isinstance(perceiver, PaintsMaps):
        raise ConfigError(f"{type(perceiver).__name__} makes no semantic maps")
    perceiver.prepare(classes)
    confusion, seconds, count = Confusion(len(classes)), 0.0, 0
    for count, one in enumerate(images, start=1):
        start = time.perf_counter()
        [(_, maps)] = perceiver.perceive_with_maps([one.frame], frozenset({"semantic"}))
        seconds += time.perf_counter() - start
        if maps.semantic is None:
            raise ConfigError(f"{type(perceiver).__name__} makes no semantic maps")
        confusion.add(one.labels, maps.semantic.ids)
        progress(count)
    if not count:
        reasons = ", ".join(f"{n} {reason}" for reason, n in images.skipped.items())
        raise ConfigError(f"no image of {images.images} can be judged: {reasons}")
    return {
        "images": count,
        **confusion.report(classes.texts),
        "fps": count / seconds,
        "skipped": dict(images.skipped),
        "unscored": {str(value): pixels for value, pixels in sorted(images.unscored.items())},
    }
