"""Shapes on planes at known depth, seen through noise, holes and missing values."""

import cv2
import numpy as np
import pytest

from ape_stream.depth import Camera, Depth, Transform, cloud, lift
from ape_stream.masks import boxes, crop
from ape_stream.types import Instances

SIZE = 360, 640
CAMERA = Camera(SIZE, 500.0, 500.0, 320.0, 180.0)
BACKGROUND = 3.0


def instances_of(shapes):
    found = tuple(crop(shape.astype(bool)) for shape in shapes)
    count = len(found)
    return Instances(
        boxes=boxes(found), scores=np.full(count, 0.9, np.float32),
        prompt_ids=np.arange(count, dtype=np.int64), masks=found, size=SIZE,
    )  # fmt: skip


def disc(x, y, a, b):
    return cv2.ellipse(np.zeros(SIZE, np.uint8), (x, y), (a, b), 0, 0, 360, 1, -1)


def drawn(shapes, distances, noise, missing):
    """Depth of shapes before a wall, with relative noise, missing values and square holes."""
    rng = np.random.default_rng(0)
    depth = np.full(SIZE, BACKGROUND, np.float32)
    for shape, z in zip(shapes, distances, strict=True):
        depth[shape > 0] = z
    depth *= 1 + noise * rng.standard_normal(SIZE).astype(np.float32)
    depth[rng.random(SIZE) < missing] = 0
    for _ in range(30):
        y, x = rng.integers(0, SIZE[0] - 8), rng.integers(0, SIZE[1] - 8)
        depth[y : y + 6, x : x + 6] = np.nan
    return depth


SHAPES = [disc(100, 100, 60, 40), disc(300, 100, 30, 50), disc(500, 250, 70, 70),
          disc(200, 280, 50, 30)]  # fmt: skip
DISTANCES = [1.0, 1.5, 2.0, 2.7]


def edge(shape, pixels):
    """The shape as a mask that is this many pixels too large, or too small."""
    kernel = np.ones((2 * abs(pixels) + 1,) * 2, np.uint8)
    return cv2.dilate(shape, kernel) if pixels > 0 else cv2.erode(shape, kernel)


@pytest.mark.parametrize("kind", ["axis_aligned", "oriented"])
@pytest.mark.parametrize("pixels", [0, 2])
def test_boxes_are_right_through_noise_holes_and_missing_values(kind, pixels):
    depth = drawn(SHAPES, DISTANCES, noise=0.01, missing=0.2)
    found = instances_of([edge(shape, pixels) for shape in SHAPES])
    for box, shape, z in zip(lift(found, depth, CAMERA, boxes=kind), SHAPES, DISTANCES,
                             strict=True):  # fmt: skip
        ys, xs = np.nonzero(shape)
        middle = np.array([(xs.min() + xs.max()) / 2, (ys.min() + ys.max()) / 2])
        truth = [*(z * (middle - (320, 180)) / 500), z]
        assert np.linalg.norm(box.center - truth) < 0.02 * z
        extent = sorted((np.ptp(xs) * z / 500 + z / 500, np.ptp(ys) * z / 500 + z / 500))
        np.testing.assert_allclose(sorted(box.size)[1:], extent, rtol=0.05)
        assert min(box.size) < 0.02 * z, "a plane is flat"
        assert abs(box.distance - z) < 0.02 * z
        assert 0 < box.spread < 0.02 * z


@pytest.mark.parametrize("pixels", [0, 2, 4])
def test_no_point_of_the_background_is_in_the_cloud(pixels):
    depth = drawn(SHAPES, DISTANCES, noise=0.005, missing=0.2)
    points = cloud(instances_of([edge(shape, pixels) for shape in SHAPES]), depth, CAMERA)
    truth = np.zeros(SIZE, int)
    for k, shape in enumerate(SHAPES, 1):
        truth[shape > 0] = k
    columns, rows = np.rint(CAMERA.project(points.points)).astype(int).T
    np.testing.assert_array_equal(truth[rows, columns], points.instances)
    assert len(points) > 0.7 * np.count_nonzero(truth)


def test_the_encoding_says_metres_or_millimetres():
    depth = drawn(SHAPES, DISTANCES, noise=0.0, missing=0.1)
    found = instances_of(SHAPES)
    millimetres = (np.nan_to_num(depth) * 1000).round().astype(np.uint16)
    for one, other in zip(lift(found, depth, CAMERA), lift(found, millimetres, CAMERA),
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(one.center, other.center, atol=1e-3)
    with pytest.raises(ValueError, match="uint16 millimetres"):
        lift(found, depth.astype(np.float64), CAMERA)


def test_depth_of_a_lower_resolution_is_used():
    depth = drawn(SHAPES, DISTANCES, noise=0.0, missing=0.0)[::2, ::2]
    for box, z in zip(lift(instances_of(SHAPES), depth, CAMERA), DISTANCES, strict=True):
        assert abs(box.center[2] - z) < 0.01 * z
    with pytest.raises(ValueError, match="register it to the camera first"):
        lift(instances_of(SHAPES), depth[:100], CAMERA)


def test_a_slanted_plane_keeps_its_edges():
    shape = disc(320, 180, 80, 60)
    columns = np.arange(SIZE[1])[None, :]
    inverse = np.broadcast_to(1 / 1.2 + (columns - 320) / 500, SIZE)
    depth = np.where(shape > 0, 1 / inverse, 5.0).astype(np.float32)
    (box,) = lift(instances_of([shape]), depth, CAMERA, boxes="axis_aligned")
    ys, xs = np.nonzero(shape)
    z = depth[ys, xs]
    truth = [np.ptp((xs - 320) / 500 * z), np.ptp((ys - 180) / 500 * z), np.ptp(z)]
    np.testing.assert_allclose(box.size, truth, rtol=0.05)
    (turned,) = lift(instances_of([shape]), depth, CAMERA)
    assert min(turned.size) < 0.03
    normal = turned.rotation[:, np.argmin(turned.size)]
    # 1/z = a x/z + c: the plane a x + c z = 1 has the normal (a, 0, c).
    expected = np.array([1.0, 0, 1 / 1.2]) / np.hypot(1, 1 / 1.2)
    assert abs(normal @ expected) > 0.999


def test_a_solid_has_its_depth():
    """Half a ball, 0.3 m deep; the last tenth of its radius is seen at a grazing angle only."""
    shape = disc(320, 180, 90, 90)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    squared = 1 - ((rows - 180) ** 2 + (columns - 320) ** 2) / 90.5**2
    depth = np.where(shape > 0, 2.0 - 0.3 * np.sqrt(np.maximum(0, squared)), 5.0)
    (box,) = lift(instances_of([shape]), depth.astype(np.float32), CAMERA, boxes="axis_aligned")
    assert 0.13 < box.size[2] < 0.3
    assert box.distance == pytest.approx(1.78, abs=0.05)


def test_masks_without_depth_have_no_box():
    depth = np.zeros(SIZE, np.float32)
    assert lift(instances_of(SHAPES), depth, CAMERA) == (None,) * 4
    assert len(cloud(instances_of(SHAPES), depth, CAMERA)) == 0
    assert lift(Instances.empty(SIZE), depth, CAMERA) == ()
    single = np.zeros(SIZE, np.uint8)
    single[5, 5] = 1
    assert lift(instances_of([single]), depth + 1, CAMERA) == (None,)


def test_something_thin_is_lifted_too():
    rod = np.zeros(SIZE, np.uint8)
    rod[100:103, 50:400] = 1
    depth = drawn([rod], [1.0], noise=0.0, missing=0.1)
    (box,) = lift(instances_of([rod]), depth, CAMERA)
    assert max(box.size) == pytest.approx(0.7, rel=0.05)


def test_boxes_and_points_can_be_in_another_frame():
    depth = drawn(SHAPES, DISTANCES, noise=0.0, missing=0.0)
    found = instances_of(SHAPES)
    # A camera that looks along the robot's x axis, a metre above the ground.
    to = Transform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([0.0, 0, 1]))
    plain = lift(found, depth, CAMERA, boxes="axis_aligned")
    for one, other in zip(plain, lift(found, depth, CAMERA, boxes="axis_aligned", to=to),
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(other.center, to.rotation @ one.center + to.translation,
                                   atol=1e-5)  # fmt: skip
        np.testing.assert_allclose(other.size, np.abs(to.rotation @ one.size), atol=1e-5)
    points = cloud(found, depth, CAMERA, to=to).points
    assert points[:, 0].min() == pytest.approx(1.0, abs=0.01)


def test_a_cloud_is_coloured_named_and_thinned():
    depth = drawn(SHAPES, DISTANCES, noise=0.0, missing=0.0)
    image = np.zeros((*SIZE, 3), np.uint8)
    for k, shape in enumerate(SHAPES):
        image[shape > 0] = (10 * k + 10, 0, 200)
    full = cloud(instances_of(SHAPES), depth, CAMERA, image=image)
    thin = full.thinned(0.02)
    assert set(full.labels) == set(thin.labels) == {1, 2, 3, 4}
    for made in (full, thin):
        np.testing.assert_array_equal(made.colors[:, 0], 10 * made.instances)
        np.testing.assert_allclose(made.scores, 0.9)
    cubes = np.floor(full.points / 0.02).astype(int)
    assert len(thin) == len(np.unique(np.column_stack([cubes, full.instances]), axis=0))
    with pytest.raises(ValueError, match="0 or more"):
        full.thinned(-1)


def test_a_point_belongs_to_the_smaller_of_two_masks():
    large, small = disc(320, 180, 100, 100), disc(320, 180, 20, 20)
    points = cloud(instances_of([large, small]), np.full(SIZE, 1.0, np.float32), CAMERA)
    assert np.count_nonzero(points.instances == 2) == np.count_nonzero(small)
    assert len(points) == np.count_nonzero(large)


def test_depth_knows_its_camera():
    found = instances_of(SHAPES)
    depth = drawn(SHAPES, DISTANCES, noise=0.0, missing=0.0)
    half = Depth(depth, CAMERA.resized((180, 320)))
    for one, other in zip(lift(found, half), lift(found, depth, CAMERA), strict=True):
        np.testing.assert_allclose(one.center, other.center, atol=1e-6)
    with pytest.raises(ValueError, match="give the camera"):
        lift(found, depth)
    with pytest.raises(ValueError, match="oriented or axis_aligned"):
        lift(found, depth, CAMERA, boxes="round")
