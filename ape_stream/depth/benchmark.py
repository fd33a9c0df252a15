"""`ape-stream bench lift`: boxes and points of 20 instances in a 1080p depth image, on one core."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import cv2
import numpy as np
import typer

from ape_stream.depth.cloud import cloud
from ape_stream.depth.lift import lift
from ape_stream.masks import boxes, crop
from ape_stream.values.camera import Camera
from ape_stream.values.depth import Depth
from ape_stream.values.instances import Instances

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["lift_benchmark", "scene"]

SIZE: Final = (1080, 1920)
CAMERA: Final = Camera(SIZE, 1400.0, 1400.0, 960.0, 540.0)
_MISSING: Final = 0.2
"""Part of the pixels without depth, as stereo cameras have it."""
_NOISE: Final = 0.005
"""Standard deviation of the depth, over the depth."""


def scene(count: int = 20) -> tuple[Instances, NDArray[np.float32]]:
    """Ellipses on planes before a wall, with noise, a fifth of the depth missing.

    Returns:
        The instances and (1080, 1920) float32 metres, NaN where depth is missing.
    """
    rng = np.random.default_rng(0)
    depth, masks = np.full(SIZE, 4.0, np.float32), []
    for k in range(count):
        row, column = divmod(k, 5)
        shape = np.zeros(SIZE, np.uint8)
        middle = (190 + 380 * column, 140 + 265 * (row % 4))
        cv2.ellipse(shape, middle, (int(rng.integers(40, 150)), 90), 0, 0, 360, 1, -1)
        depth[shape > 0] = rng.uniform(1.0, 3.5)
        masks.append(crop(shape.astype(bool)))
    depth *= 1 + _NOISE * rng.standard_normal(SIZE).astype(np.float32)
    depth[rng.random(SIZE) < _MISSING] = np.nan
    found = Instances(
        boxes=boxes(masks),
        scores=np.full(count, 0.9, np.float32),
        prompt_ids=np.zeros(count, np.int64),
        masks=tuple(masks),
        size=SIZE,
    )
    return found, depth


def _best_ms(work: Callable[[], Any], rounds: int) -> float:
    """CPU time of the fastest of several rounds, milliseconds."""
    spent = []
    for _ in range(rounds):
        start = time.thread_time()
        work()
        spent.append(1e3 * (time.thread_time() - start))
    return min(spent)


def lift_benchmark(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line per form.")] = False,
) -> None:
    """Boxes and points of 20 instances at 1080p: CPU time of one core, and the ratio to a copy."""
    found, metres = scene()
    depth = Depth(metres, CAMERA)
    copy_ms = _best_ms(lambda: metres * np.float32(2), rounds)
    forms: dict[str, Callable[[], Any]] = {
        "boxes, axis aligned": lambda: lift(found, depth, boxes="axis_aligned"),
        "boxes, oriented": lambda: lift(found, depth),
        "points": lambda: cloud(found, depth),
        "points, 1 cm": lambda: cloud(found, depth, voxel_m=0.01),
    }
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for form, work in forms.items():
            spent_ms = _best_ms(work, rounds)
            line = {
                "form": form,
                "ms": round(spent_ms, 2),
                "of_a_pass": round(spent_ms / copy_ms, 1),
            }
            shown = json.dumps(line) if as_json else "{form:22} {ms:8.2f} ms {of_a_pass:8.1f}x"
            typer.echo(shown if as_json else shown.format(**line))
    finally:
        cv2.setNumThreads(threads)
