"""A calibrated camera: pixels to rays and back, as sensor_msgs/CameraInfo describes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["DISTORTION_MODELS", "Camera"]

DISTORTION_MODELS: Final = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}
"""Distortion model, by ROS's name -> how many coefficients it may have, in OpenCV's order."""


# Without slots: the rays of a distorted camera are computed once and kept.
@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with lens distortion; x is right, y down, z forward, metres."""

    size: tuple[int, int]
    """Height and width of its images in pixels."""
    fx: float
    """Focal length in pixel widths."""
    fy: float
    """Focal length in pixel heights."""
    cx: float
    """Column of the principal point; the centre of the first pixel is 0."""
    cy: float
    """Row of the principal point."""
    distortion: tuple[float, ...] = ()
    """Coefficients of the distortion; none, or zeros only, for rectified images."""
    model: str = "plumb_bob"
    """One of `DISTORTION_MODELS`."""

    def __post_init__(self) -> None:
        """Check what a wrong calibration has wrong.

        Raises:
            ValueError: no focal length, no pixels, or an unknown distortion.
        """
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not all(map(math.isfinite, numbers)) or min(self.fx, self.fy, *self.size) <= 0:
            raise ValueError(
                f"a camera has pixels and focal lengths above 0, got {self.size[1]}x{self.size[0]},"
                f" fx {self.fx:g}, fy {self.fy:g}: is it calibrated?"
            )
        if not any(self.distortion):
            object.__setattr__(self, "distortion", ())
        elif len(self.distortion) not in DISTORTION_MODELS.get(self.model, ()):
            raise ValueError(
                f"distortion {self.model!r} with {len(self.distortion)} coefficients is none of"
                f" {', '.join(DISTORTION_MODELS)}"
            )

    @classmethod
    def calibrated(
        cls,
        size: tuple[int, int],
        k: Sequence[float],
        distortion: Sequence[float] = (),
        model: str = "plumb_bob",
        *,
        roi: tuple[int, int, int, int] = (0, 0, 0, 0),
        binning: tuple[int, int] = (1, 1),
    ) -> Camera:
        """The camera of images that a sensor delivers cropped and binned.

        As image_geometry does: the calibration holds for the whole sensor; the image is its region
        of interest, of which `binning` pixels are one.

        Args:
            size: Height and width of the whole sensor in pixels.
            k: (9,) rows of the camera matrix K.
            distortion: Coefficients.
            model: One of `DISTORTION_MODELS`, or empty.
            roi: X, y, width and height of the region on the sensor; a width of 0 is all of it.
            binning: Pixels that are one, across and down; 0 counts as 1.

        Raises:
            ValueError: see `Camera`.
        """
        x, y, width, height = roi if roi[2] and roi[3] else (0, 0, size[1], size[0])
        across, down = (max(1, count) for count in binning)
        return cls(
            size=(height // down, width // across),
            fx=k[0] / across,
            fy=k[4] / down,
            cx=(k[2] - x) / across,
            cy=(k[5] - y) / down,
            distortion=tuple(float(value) for value in distortion),
            model=model or "plumb_bob",
        )

    def resized(self, size: tuple[int, int]) -> Camera:
        """The camera of the same images resized to this height and width."""
        if size == self.size:
            return self
        down, across = size[0] / self.size[0], size[1] / self.size[1]
        # A pixel's centre is at its number: pixel 0 reaches from -0.5 to 0.5.
        return replace(
            self,
            size=size,
            fx=self.fx * across,
            fy=self.fy * down,
            cx=(self.cx + 0.5) * across - 0.5,
            cy=(self.cy + 0.5) * down - 0.5,
        )

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3) float64, the camera matrix K."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    def rays(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Where the rays of pixels pass the plane one metre in front of the camera.

        Args:
            rows: (h,) rows of pixels.
            columns: (w,) columns of pixels.

        Returns:
            The x and y, float32 metres, which broadcast to (h, w).
        """
        if self.distortion:
            chosen = self._undistorted[np.ix_(rows, columns)]  # (h, w, 2)
            return chosen[..., 0], chosen[..., 1]
        x = ((columns - self.cx) / self.fx).astype(np.float32)
        y = ((rows - self.cy) / self.fy).astype(np.float32)
        return x[None, :], y[:, None]

    @cached_property
    def _undistorted(self) -> NDArray[np.float32]:
        """(H, W, 2) float32: x and y of every pixel's ray at one metre."""
        height, width = self.size
        pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
        flat = pixels.reshape(-1, 1, 2).astype(np.float64)
        undistort = cv2.undistortPoints
        if self.model == "equidistant":
            undistort = cv2.fisheye.undistortPoints  # type: ignore[assignment]
        rays = undistort(flat, self.matrix, np.array(self.distortion, np.float64))
        return rays.reshape(height, width, 2).astype(np.float32)

    def project(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3) points in front of the camera to (N, 2) columns and rows, float32 pixels."""
        x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
        if self.distortion:
            rays = np.stack([x, y], -1).astype(np.float64).reshape(-1, 1, 2)
            coefficients = np.array(self.distortion, np.float64)
            if self.model == "equidistant":
                pixels = cv2.fisheye.distortPoints(rays, self.matrix, coefficients)
            else:
                ahead = cv2.convertPointsToHomogeneous(rays)
                zero = np.zeros(3)
                pixels, _ = cv2.projectPoints(ahead, zero, zero, self.matrix, coefficients)
            return pixels.reshape(-1, 2).astype(np.float32)
        return np.stack([x * self.fx + self.cx, y * self.fy + self.cy], -1).astype(np.float32)
