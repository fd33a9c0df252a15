"""`ape-stream bench scores`: memory and time of LVIS scores, on a made-up set of its size."""

from __future__ import annotations

import json
import resource
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import typer
from pycocotools import mask as coco

from ape_stream.evaluation.benchmarks.scoring import lvis
from ape_stream.evaluation.benchmarks.scoring.records import (
    Classes,
    Federation,
    FoundRegions,
    Images,
    MaskCodes,
    RegionTruth,
    TrueRegions,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["made_up_predictions", "made_up_truth", "scores_benchmark"]

# LVIS v1 val: 244,707 regions in 19,809 images, 1,203 classes.
IMAGES: Final = 19_809
CLASSES: Final = 1203
"""As LVIS has them."""
SIZE: Final = (480, 640)
"""Height and width of an image."""
SHARD: Final = 500
"""Images of a shard."""
_REGIONS: Final = 12
_PRESENT: Final = 4
_ABSENT: Final = 6
_COPIES: Final = 8
"""Detections around each true region; all others are of any class, anywhere."""


def made_up_truth(images: int, rng: np.random.Generator) -> RegionTruth:
    """Random boxes with masks of their shape; few classes are frequent, as in LVIS."""
    ids = np.arange(1, images + 1)
    share = 1 / (np.arange(CLASSES) + 10)
    drawn = rng.choice(CLASSES, (images, _PRESENT + _ABSENT), p=share / share.sum()) + 1
    present, absent = drawn[:, :_PRESENT], drawn[:, _PRESENT:]
    image_ids = np.repeat(ids, _REGIONS)
    class_ids = np.take_along_axis(present, rng.integers(0, _PRESENT, (images, _REGIONS)), 1)
    xywh = _boxes(len(image_ids), rng)
    regions = TrueRegions(
        image_ids=image_ids,
        class_ids=class_ids.ravel(),
        xywh=xywh,
        areas=xywh[:, 2] * xywh[:, 3],
        groups=np.zeros(len(image_ids), np.bool_),
        masks=_masks(xywh),
    )
    # A drawn class may be on both sides; what has a region is present.
    negative = np.stack([np.repeat(ids, _ABSENT), absent.ravel()], 1)
    federation = Federation(negative, np.stack([ids, present[:, 0]], 1), np.zeros((0, 2), np.int64))
    classes = Classes(
        ids=np.arange(1, CLASSES + 1),
        names=tuple(f"class {k}" for k in range(CLASSES)),
        frequencies=tuple("fcr"[3 * k // CLASSES] for k in range(CLASSES)),
    )
    sizes = np.tile(np.array(SIZE, np.int32), (images, 1))
    return RegionTruth(Images(ids, sizes), classes, regions, federation)


def _boxes(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(N, 4) inside the image, from 8 to 120 pixels wide and high."""
    sides = rng.uniform(8, 120, (count, 2))
    return np.concatenate([rng.random((count, 2)) * (np.array(SIZE[::-1]) - sides), sides], 1)


def _masks(xywh: NDArray[np.float64]) -> MaskCodes:
    return MaskCodes.of(coco.frPyObjects(xywh, *SIZE))


def made_up_predictions(
    truth: RegionTruth, detections: int, rng: np.random.Generator
) -> Iterator[FoundRegions]:
    """Detections of each image, in shards: some near each true region, the others anywhere."""
    for start in range(0, len(truth.images.ids), SHARD):
        ids = truth.images.ids[start : start + SHARD]
        rows = np.arange(start * _REGIONS, (start + len(ids)) * _REGIONS)
        true = truth.regions.select(rows)
        near = true.xywh.repeat(_COPIES, 0)
        near = np.maximum(near + rng.normal(0, 4, near.shape), [0, 0, 1, 1])
        others = detections - _REGIONS * _COPIES
        count = len(ids) * others
        xywh = np.concatenate([near, _boxes(count, rng)])
        yield FoundRegions(
            image_ids=np.concatenate([true.image_ids.repeat(_COPIES), ids.repeat(others)]),
            class_ids=np.concatenate(
                [true.class_ids.repeat(_COPIES), rng.integers(1, CLASSES + 1, count)]
            ).astype(np.int32),
            xywh=xywh.astype(np.float32),
            scores=rng.random(len(xywh), np.float32),
            masks=_masks(xywh),
        )


def scores_benchmark(
    *,
    images: Annotated[int, typer.Option(min=1, help="How many; LVIS val has 19,809.")] = IMAGES,
    detections: Annotated[int, typer.Option(min=100, help="Detections of each image.")] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for machines.")] = False,
) -> None:
    """Memory and time of the scores of LVIS, boxes and masks, on a made-up set of its size."""
    rng = np.random.default_rng(0)
    truth = made_up_truth(images, rng)
    parts, made, reading = [], 0, 0.0
    for part in made_up_predictions(truth, detections, rng):
        start = time.perf_counter()
        parts.append(lvis.judged(truth, part))
        reading += time.perf_counter() - start
        made += len(part)
    start, busy = time.perf_counter(), time.process_time()
    found = FoundRegions.join(parts)
    result = lvis.score(truth, found)
    line: dict[str, Any] = {
        "images": images,
        "detections": made,
        "judged": len(found),
        "reading_s": round(reading, 1),
        "scoring_s": round(time.perf_counter() - start, 1),
        "scoring_cpu_s": round(time.process_time() - busy, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "box_ap": result.figures["box/AP"],
        "mask_ap": result.figures["mask/AP"],
    }
    if as_json:
        typer.echo(json.dumps(line))
        return
    for name, value in line.items():
        typer.echo(f"{name:14} {value:,}")
