"""Canvases from the images: their shape, and large enough for the small regions in them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ape_model.training.errors import RecipeError
from ape_stream.datasets.shapes import bounding_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.training.data.world_dataset import Canvas, Phase
    from ape_stream.datasets.instances import InstanceData

__all__ = ["fit_phases", "needs_sides"]

LONG_SIDE = (160, 384)
"""Least and most pixels of the long side. 160 shows a region that fills half of an image in as many
pixels as nano learnt on; beyond 384 a step takes minutes on a CPU."""
SMALL_REGION = 40
"""Pixels that the small regions should have, as root of their area: five tokens of stride 8."""
SMALL_SHARE = 0.25
"""Share of the regions that count as small."""
LEAST_BATCH = 2
"""Images of a batch whose batch norms are trained."""
UNIT = 32
"""Batches are padded to multiples of this."""


def needs_sides(phases: Sequence[Phase]) -> bool:
    """Whether a canvas of the run takes its sides from the data."""
    return any(not canvas.has_sides for phase in phases for canvas in phase.canvases)


def fit_phases(phases: tuple[Phase, ...], data: Sequence[InstanceData]) -> tuple[Phase, ...]:
    """Give every canvas without sides those that suit the images.

    Args:
        phases: Of a recipe.
        data: The data sets of images of the run.

    Raises:
        RecipeError: a canvas has no sides, and there are no images.
    """
    if not needs_sides(phases):
        return phases
    if not data:
        raise RecipeError("a canvas without height and width takes them from images: give --data")
    height, width = _sides(data)
    return tuple(
        replace(phase, canvases=tuple(_fitted(one, height, width) for one in phase.canvases))
        for phase in phases
    )


def _fitted(canvas: Canvas, height: int, width: int) -> Canvas:
    if canvas.has_sides:
        return canvas
    # As many pixels in a batch as the recipe's number of the smallest canvases of this shape has.
    images = canvas.batch * (LONG_SIDE[0] / max(height, width)) ** 2
    batch = min(canvas.batch, max(LEAST_BATCH, round(images)))
    return replace(canvas, height=height, width=width, batch=batch)


def _sides(data: Sequence[InstanceData]) -> tuple[int, int]:
    """Height and width that suit the images."""
    images = [image for one in data for image in one.labelled]
    sides = np.array([image.size for image in images], float)  # (N, 2) height, width
    shares = [
        np.sqrt(np.prod(bounding_box(region.shape, image.size)[2:])) / max(image.size)
        for image in images
        for region in image.regions
    ]
    wanted = SMALL_REGION / max(float(np.quantile(shares, SMALL_SHARE)), 1e-3)
    long_side = _multiple(float(np.clip(wanted, *LONG_SIDE)))
    # The geometric mean: as many tall images as wide ones make a square.
    ratio = float(np.exp(np.log(sides[:, 0] / sides[:, 1]).mean()))  # height over width
    short_side = min(long_side, _multiple(long_side * min(ratio, 1 / ratio)))
    return (short_side, long_side) if ratio < 1 else (long_side, short_side)


def _multiple(side: float) -> int:
    """The nearest multiple of `UNIT`, at least one."""
    return max(1, round(side / UNIT)) * UNIT
