"""Poles a few pixels wide, in all directions and slopes: most of such a mask is background."""

import cv2
import numpy as np
import pytest

from ape_stream.depth import Camera, cloud, lift
from ape_stream.masks import boxes, crop
from ape_stream.types import Instances

SIZE = 240, 360
CAMERA = Camera(SIZE, 400.0, 400.0, 180.0, 120.0)
ROWS, COLUMNS = np.mgrid[: SIZE[0], : SIZE[1]]
LONG = 80


def pole(width, degrees, slope):
    """A line through the middle of the image, and the depth of the plane that it lies in."""
    x, y = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    shape = np.zeros(SIZE, np.uint8)
    ends = [(round(180 + s * LONG * x), round(120 + s * LONG * y)) for s in (-1, 1)]
    cv2.line(shape, *ends, 1, width)
    along = ((COLUMNS - 180) * x + (ROWS - 120) * y) / LONG
    return shape, 1.2 / (1 + slope * along)


def behind(kind, depth):
    """A wall, a floor, or a plane a few percent behind the pole."""
    if kind == "floor":
        return 1 / (0.3 + 0.0008 * (ROWS - 120))
    return np.full(SIZE, 4.0) if kind == "wall" else 1.06 * depth


@pytest.mark.parametrize("degrees", [0, 30, 45, 90])
@pytest.mark.parametrize("background", ["wall", "floor", "close"])
def test_only_the_pole_is_lifted(degrees, background):
    for width, off, slope in ((2, 1, 0.3), (2, 3, 0.0), (3, 2, 0.3), (3, 3, 0.3), (9, 3, 0.3)):
        shape, depth = pole(width, degrees, slope)
        rng = np.random.default_rng(0)
        metres = np.where(shape > 0, depth, behind(background, depth))
        metres *= 1 + 0.005 * rng.standard_normal(SIZE)
        metres[rng.random(SIZE) < 0.2] = 0
        mask = cv2.dilate(shape, np.ones((2 * off + 1, 2 * off + 1), np.uint8))
        found = Instances(
            boxes=boxes([crop(mask.astype(bool))]), scores=np.ones(1, np.float32),
            prompt_ids=np.zeros(1, np.int64), masks=(crop(mask.astype(bool)),), size=SIZE,
        )  # fmt: skip
        points = cloud(found, metres.astype(np.float32), CAMERA).points
        columns, rows = np.rint(CAMERA.project(points)).astype(int).T
        assert shape[rows, columns].all(), (width, off, slope, "background in the points")
        assert len(points) > 0.7 * np.count_nonzero(metres[shape > 0])
        (box,) = lift(found, metres.astype(np.float32), CAMERA)
        z = depth[shape > 0]
        ends = (COLUMNS[shape > 0] - 180) * z / 400, (ROWS[shape > 0] - 120) * z / 400, z
        length = np.linalg.norm([np.ptp(one) for one in ends])
        assert max(box.size) == pytest.approx(length, rel=0.05)


def test_a_line_of_single_pixels_does_not_tilt_its_surface():
    """Along it nothing says how the surface goes on across."""
    shape = np.zeros(SIZE, np.uint8)
    shape[100:103, 50:300] = 1
    found = Instances(
        boxes=boxes([crop(shape.astype(bool))]), scores=np.ones(1, np.float32),
        prompt_ids=np.zeros(1, np.int64), masks=(crop(shape.astype(bool)),), size=SIZE,
    )  # fmt: skip
    points = cloud(found, np.full(SIZE, 1.5, np.float32), CAMERA).points
    assert len(points) == np.count_nonzero(shape), "the rows at the rim agree with the middle one"
