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

_ALL = slice(None)
_INFINITY: int = 0x7F800000
"""The bits of a float32 that is infinite."""
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

    def metres(self, rows: slice = _ALL, columns: slice = _ALL) -> NDArray[np.float32]:
        """Depth at pixels of the image.

        Args:
            rows: Rows of the image.
            columns: Columns of the image.

        Returns:
            (h, w) float32 metres; 0 where there is no value.
        """
        if self.values.shape == self.camera.size:
            chosen = self.values[rows, columns]
        else:  # the pixel of the depth that covers it
            down, across = (
                np.arange(full)[wanted] * own // full
                for wanted, own, full in zip(
                    (rows, columns), self.values.shape, self.camera.size, strict=True
                )
            )
            chosen = self.values[np.ix_(down, across)]
        if chosen.dtype == np.uint16:
            return (chosen / np.float32(1000)).astype(np.float32, copy=False)
        # The bits of floats are in the order of the floats. NaN, infinity and negative values (a
        # driver's "invalid") become 0; np.where takes three times as long.
        bits = np.ascontiguousarray(chosen).view(np.int32)
        return (bits * ((bits > 0) & (bits < _INFINITY))).view(np.float32)
