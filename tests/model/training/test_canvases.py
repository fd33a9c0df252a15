"""Canvases take shape and size from the images."""

from pathlib import Path

import pytest

from ape_model.training.data.canvases import fit_phases
from ape_model.training.data.world_dataset import Canvas, Phase
from ape_model.training.errors import RecipeError
from ape_stream.datasets.instances import InstanceData, InstanceImage, Region, Skips

OPEN = (Phase(0, (Canvas(batch=8),)), Phase(9, (Canvas(96, 64, 3),)))


def box(x, y, w, h):
    return Region(0, [[x, y, x + w, y, x + w, y + h, x, y + h]], masked=False)


def images(*sizes, side=0.5):
    """An image of each (height, width) with a region of the area of `side` of its long side."""
    entries = []
    for height, width in sizes:
        tall = min(side * max(height, width), height)
        region = box(0, 0, (side * max(height, width)) ** 2 / tall, tall)
        entries.append(InstanceImage(Path("a.png"), (height, width), (region,)))
    return [InstanceData(tuple(entries), ("gizmo",), ((),), 1, Skips())]


@pytest.mark.parametrize(
    ("sizes", "canvas"),
    [
        ([(480, 640)], (128, 160)),
        ([(640, 480)], (160, 128)),
        ([(720, 1280)], (96, 160)),
        ([(480, 640), (640, 480)], (160, 160)),  # half tall, half wide
        ([(100, 1000)], (32, 160)),
    ],
)
def test_the_shape_is_that_of_the_images(sizes, canvas):
    first, second = fit_phases(OPEN, images(*sizes, side=0.25))
    assert (first.canvases[0].height, first.canvases[0].width) == canvas
    assert first.canvases[0].batch == 8
    assert second == OPEN[1]


@pytest.mark.parametrize(
    ("side", "long_side", "batch"), [(0.5, 160, 8), (0.2, 192, 6), (0.125, 320, 2), (0.01, 384, 2)]
)
def test_small_regions_get_a_larger_canvas_and_fewer_images_a_step(side, long_side, batch):
    [canvas] = fit_phases(OPEN, images((400, 400), side=side))[0].canvases
    assert (canvas.height, canvas.width, canvas.batch) == (long_side, long_side, batch)


def test_a_recipe_with_sides_stays_as_it_is():
    assert fit_phases(OPEN[1:], []) == OPEN[1:]


def test_without_images_an_open_canvas_is_refused():
    with pytest.raises(RecipeError, match="without height and width takes them from images"):
        fit_phases(OPEN, [])


def test_one_side_alone_is_refused():
    with pytest.raises(ValueError, match="width is 0: it must be at least 1"):
        Canvas(height=64)
