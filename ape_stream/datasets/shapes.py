"""The shape of a region: its run-length code, its pixels and its box."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as rle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.datasets.instances import Shape

__all__ = ["bounding_box", "decode_shape", "encode_shape"]


def encode_shape(shape: Shape, size: tuple[int, int]) -> dict[str, Any]:
    """COCO's run-length code of a shape in an image of (height, width), its counts as text."""
    if isinstance(shape, list):
        code: dict[str, Any] = rle.merge(rle.frPyObjects(shape, *size))
        return code
    return rle.frPyObjects(shape, *size) if isinstance(shape["counts"], list) else shape


def decode_shape(shape: Shape, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pixels of a shape: (H, W) uint8, 0 or 1."""
    with warnings.catch_warnings():
        # pycocotools' array wrapper predates NumPy 2, which warns at every call.
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(rle.decode(encode_shape(shape, size)), np.uint8)


def bounding_box(shape: Shape, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """x, y, width and height of a shape, pixels, inside its image of (height, width)."""
    if isinstance(shape, dict):
        x, y, w, h = rle.toBbox(encode_shape(shape, size)).tolist()
        return x, y, w, h
    limits = []
    for axis, side in enumerate((size[1], size[0])):
        values = [value for part in shape for value in part[axis::2]]
        limits.append((max(0.0, min(values)), min(float(side), max(values))))
    (left, right), (top, bottom) = limits
    return left, top, right - left, bottom - top
