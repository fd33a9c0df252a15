"""The depth that belongs to an image: metres for each pixel, and the camera that saw both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream.values.arrays import read_only

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.values.camera import Camera

__all__ = ["Depth"]

_ASPECT: float = 0.02
"""Largest relative difference of the aspect ratios of an image and its depth."""


@dataclass(frozen=True, slots=True, eq=False)
class Depth:
    """Distances along z, seen by the camera of the image; perhaps in another resolution."""

    values: NDArray[Any]
    """(h, w) float32 metres (ROS: 32FC1) or uint16 millimetres (16UC1); NaN, infinity and 0 are no
    value. It covers the whole image of the camera. Read-only."""
    camera: Camera
    """The camera of the image."""

    def __post_init__(self) -> None:
        """Check the shape and dtype, and make the values read-only.

        Raises:
            ValueError: they are no depth image, or not of this camera.
        """
        shape, dtype = self.values.shape, self.values.dtype
        if len(shape) != 2 or 0 in shape or dtype not in (np.float32, np.uint16):
            raise ValueError(
                f"depth is (h, w) float32 metres or uint16 millimetres, got {shape} {dtype}"
            )
        height, width = self.camera.size
        if abs(shape[0] * width / (shape[1] * height) - 1) > _ASPECT:
            raise ValueError(
                f"a depth image of {shape[1]}x{shape[0]} does not cover an image of"
                f" {width}x{height}: register it to the camera first"
            )
        object.__setattr__(self, "values", read_only(self.values))

    def metres(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float32]:
        """Depth at pixels of the image.

        Args:
            rows: (h,) rows of the image.
            columns: (w,) columns of the image.

        Returns:
            (h, w) float32 metres; 0 where there is no value.
        """
        (height, width), (full_height, full_width) = self.values.shape, self.camera.size
        if (height, width) != (full_height, full_width):  # the pixel of the depth that covers it
            rows = rows * height // full_height
            columns = columns * width // full_width
        chosen = self.values[np.ix_(rows, columns)]
        if chosen.dtype == np.uint16:
            return (chosen / np.float32(1000)).astype(np.float32, copy=False)
        # NaN, infinity and negative values (a driver's "invalid") compare as False.
        return np.where((chosen > 0) & (chosen < np.inf), chosen, 0).astype(np.float32, copy=False)
