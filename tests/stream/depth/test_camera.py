import cv2
import numpy as np
import pytest

from ape_stream.depth import Camera, Transform, from_points, quaternion, registered

K = (500.0, 0, 320.0, 0, 480.0, 240.0, 0, 0, 1)
MODELS = {
    "plumb_bob": (-0.2, 0.05, 0.001, -0.002, 0.0),
    "rational_polynomial": (0.1, -0.05, 0.001, 0.0, 0.01, 0.2, -0.01, 0.001),
    "equidistant": (0.02, -0.01, 0.003, -0.001),
}


@pytest.mark.parametrize("model", [None, *MODELS])
def test_pixels_to_rays_and_back(model):
    camera = Camera.calibrated((480, 640), K, MODELS.get(model, ()), model or "")
    rows, columns = np.array([0, 100, 479]), np.array([0, 320, 639])
    x, y = camera.rays(rows, columns)
    x, y = np.broadcast_to(x, (3, 3)), np.broadcast_to(y, (3, 3))
    points = np.stack([3 * x, 3 * y, np.full((3, 3), 3, np.float32)], -1).reshape(-1, 3)
    pixels = camera.project(points).reshape(3, 3, 2)
    grid = np.stack(np.meshgrid(columns, rows), -1)
    np.testing.assert_allclose(pixels, grid, atol=0.1)


def test_a_region_of_interest_and_binning_move_the_centre():
    camera = Camera.calibrated((480, 640), K, roi=(100, 40, 320, 240), binning=(2, 2))
    assert camera.size == (120, 160)
    assert (camera.fx, camera.fy) == (250, 240)
    assert (camera.cx, camera.cy) == (110, 100)
    assert Camera.calibrated((480, 640), K, binning=(0, 0)).size == (480, 640)


def test_a_resized_camera_sees_the_same():
    camera = Camera.calibrated((480, 640), K)
    half = camera.resized((240, 320))
    point = np.array([[0.3, -0.2, 2.0]], np.float32)
    np.testing.assert_allclose(half.project(point) + 0.5, (camera.project(point) + 0.5) / 2)
    assert camera.resized((480, 640)) is camera


@pytest.mark.parametrize(
    ("k", "distortion", "model", "message"),
    [
        ((0.0,) * 9, (), "", "is it calibrated"),
        (K, (0.1,), "poem", "none of plumb_bob"),
        (K, (0.1, 0.2), "plumb_bob", "2 coefficients"),
        ((np.nan, *K[1:]), (), "", "is it calibrated"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused(k, distortion, model, message):
    with pytest.raises(ValueError, match=message):
        Camera.calibrated((480, 640), k, distortion, model)


def test_zeros_are_no_distortion_under_any_model():
    assert Camera.calibrated((480, 640), K, (0.0,) * 5, "none").distortion == ()


def test_a_quaternion_and_its_rotation():
    transform = Transform.of((1, 2, 3), (0.1, -0.2, 0.3, 0.9))
    np.testing.assert_allclose(transform.rotation @ transform.rotation.T, np.eye(3), atol=1e-12)
    expected = np.array([0.1, -0.2, 0.3, 0.9]) / np.linalg.norm([0.1, -0.2, 0.3, 0.9])
    np.testing.assert_allclose(quaternion(transform.rotation), expected, atol=1e-9)
    angles = np.array(quaternion(cv2.Rodrigues(np.array([0.0, 0.0, np.pi]))[0]))
    np.testing.assert_allclose(np.abs(angles), [0, 0, 1, 0], atol=1e-6)
    for bad in ((0, 0, 0, 0), (np.nan, 0, 0, 1)):
        with pytest.raises(ValueError, match="no transform"):
            Transform.of((0, 0, 0), bad)


def test_depth_of_another_camera_is_moved_to_the_image():
    """A wall with a box before it, seen by a depth camera 5 cm to the left."""
    depth_camera = Camera((120, 160), 100.0, 100.0, 80.0, 60.0)
    camera = Camera((480, 640), 400.0, 400.0, 320.0, 240.0)
    depth = np.full((120, 160), 2000, np.uint16)
    depth[40:80, 60:100] = 1000
    moved = registered(depth, depth_camera, camera, Transform(np.eye(3), np.array([-0.05, 0, 0])))
    z = moved.metres()
    # At one metre the box moves by 400 * 0.05 = 20 pixels to the left.
    assert np.median(z[200:280, 240:360]) == pytest.approx(1.0)
    assert (z[200:280, 390:500] != 1.0).all()
    assert np.median(z[:, 450:600]) == pytest.approx(2.0)


def test_points_are_seen_once_and_the_nearest_of_them():
    camera = Camera((100, 100), 100.0, 100.0, 50.0, 50.0)
    grid = np.stack(np.meshgrid(np.linspace(-0.4, 0.4, 60), np.linspace(-0.4, 0.4, 60)), -1)
    wall = np.concatenate([grid * 2, np.full((60, 60, 1), 2.0)], -1).reshape(-1, 3)
    sheet = np.concatenate([grid / 4, np.full((60, 60, 1), 1.0)], -1).reshape(-1, 3)
    bad = np.array([[np.nan, 0, 1], [0, 0, -1], [0, 0, 0], [np.inf, 0, 1]])
    depth = from_points(np.concatenate([sheet, wall, bad]).astype(np.float32), camera)
    z = depth.metres()
    assert (z[45:56, 45:56] == 1.0).all()
    assert set(np.unique(z)) <= {0.0, 1.0, 2.0}
    empty = from_points(np.zeros((0, 3), np.float32), camera)
    assert not empty.metres().any()
