"""How well are the labelled regions of a user's images found? COCO's average precision."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream.datasets.shapes import bounding_box, encode_shape
from ape_stream.errors import ConfigError, SourceError
from ape_stream.evaluation.names import LOW, name_prompts
from ape_stream.evaluation.precision import average_of, coco_index, judge_with_coco
from ape_stream.masks import encode_rle
from ape_stream.sources.pixels import read_image
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_stream.datasets.instances import InstanceData, InstanceImage, Region
    from ape_stream.evaluation.precision import Average
    from ape_stream.protocols import Perceiver
    from ape_stream.types import Instances

__all__ = ["judge_detection"]

_log = logging.getLogger("ape_stream")


@dataclass(slots=True, eq=False)
class _Rows:
    """Truth and findings of the images judged so far, in COCO's form."""

    images: list[dict[str, int]] = field(default_factory=list)
    truth: list[dict[str, Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)
    masked: bool = True
    """Whether every true region and everything that was found has a mask."""

    def add(self, image: InstanceImage, found: Instances) -> None:
        """Add one image; prompt ids are class ids."""
        number, (height, width) = len(self.images), image.size
        self.images.append({"id": number, "height": height, "width": width})
        for regions, crowd in ((image.regions, 0), (image.ignored, 1)):
            for region in regions:
                self.truth.append(_true_row(region, image.size) | _place(number, crowd))
                self.masked &= region.masked or bool(crowd)
        self.masked &= found.masks is not None or not len(found.scores)
        for k, (x1, y1, x2, y2) in enumerate(found.boxes.tolist()):
            row: dict[str, Any] = {"category_id": int(found.prompt_ids[k])}
            row["score"] = float(found.scores[k])
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            if found.masks is not None:
                row["segmentation"] = encode_rle(found.masks[k], found.size)
            self.found.append(row | _place(number, 0))

    def average(self, kind: str, classes: int) -> Average:
        """Average precision per class, of boxes ("bbox") or masks ("segm")."""
        truth = coco_index(self.images, self.truth, classes)
        return average_of(judge_with_coco(truth, coco_index(self.images, self.found), kind))


def _place(image: int, crowd: int) -> dict[str, int]:
    return {"image_id": image, "iscrowd": crowd}


def _true_row(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    box = bounding_box(region.shape, size)
    code = encode_shape(region.shape, size)
    return {
        "category_id": region.class_id,
        "bbox": list(box),
        "area": box[2] * box[3],
        "segmentation": code,
    }


def judge_detection(
    perceiver: Perceiver, data: InstanceData, progress: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """Judge a model on labelled images, one image a call, each with all names as prompts.

    Things are asked for at a low threshold, which average precision needs; stuff at the model's
    own, because all regions of a stuff are one.

    Args:
        perceiver: The model.
        data: Images and their regions; images without any count as well.
        progress: Called with the number of images so far.

    Returns:
        Figures, 0..1, ready for JSON: of boxes, and of masks where all regions have some.

    Raises:
        ConfigError: no image could be judged.
    """
    perceiver.prepare(name_prompts(data.names, LOW, data.things))
    rows, skipped, seconds = _Rows(), Counter[str](), 0.0
    for count, image in enumerate(data.images, start=1):
        try:
            frame = Frame(read_image(image.path), count, float(count), origin=str(image.path))
        except SourceError as error:
            _log.warning("left out: %s", error)
            skipped["unreadable image"] += 1
            continue
        if frame.size != image.size:
            _log.warning("left out: %s has another size than its annotations say", image.path)
            skipped["image of another size"] += 1
            continue
        start = time.perf_counter()
        [found] = perceiver.perceive([frame])
        seconds += time.perf_counter() - start
        rows.add(image, found)
        progress(count)
    if not rows.images:
        reasons = ", ".join(f"{n} {reason}" for reason, n in skipped.items())
        raise ConfigError(f"no image can be judged: {reasons}")
    return {
        "images": len(rows.images),
        "regions": sum(not row["iscrowd"] for row in rows.truth),
        **_figures(rows, data.names),
        "fps": len(rows.images) / seconds,
        "skipped": {**data.skips.counts, **skipped},
    }


def _figures(rows: _Rows, names: tuple[str, ...]) -> dict[str, Any]:
    kinds = {"": "bbox"} | ({"mask_": "segm"} if rows.masked else {})
    judged = {prefix: rows.average(kind, len(names)) for prefix, kind in kinds.items()}
    totals: dict[str, Any] = {}
    by_class: dict[str, dict[str, float | None]] = {name: {} for name in names}
    for prefix, average in judged.items():
        totals |= {f"{prefix}ap": average.mean(), f"{prefix}ap50": average.mean50()}
        for k, name in enumerate(names):
            by_class[name] |= {
                f"{prefix}ap": _known(average.ap[k]),
                f"{prefix}ap50": _known(average.ap50[k]),
            }
    return totals | {"by_class": by_class}


def _known(value: np.float64) -> float | None:
    """None for a class that is in no image."""
    return None if np.isnan(value) else float(value)
