"""Boxes around points: along given axes, or turned to fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, get_args

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Box3D", "BoxKind", "around", "check_kind"]

BoxKind = Literal["oriented", "axis_aligned"]
"""`axis_aligned`: along the axes of the coordinate frame; `oriented`: turned to fit."""


@dataclass(frozen=True, slots=True, eq=False)
class Box3D:
    """A box in space around the visible side of an object."""

    center: NDArray[np.float64]
    """(3,) float64 metres."""
    size: NDArray[np.float64]
    """(3,) float64 metres, along the axes of the box."""
    rotation: NDArray[np.float64]
    """(3, 3) float64: its columns are the axes of the box."""
    distance: float
    """Median depth of the eroded mask, metres from the camera."""
    spread: float
    """Median absolute deviation from it, metres."""
    points: int
    """How many depth values it was made from."""


def check_kind(kind: str) -> None:
    """Refuse an unknown kind of box.

    Raises:
        ValueError: it is none.
    """
    if kind not in get_args(BoxKind):
        raise ValueError(f"boxes are {' or '.join(get_args(BoxKind))}, not {kind!r}")


def around(
    points: NDArray[np.float32], kind: BoxKind, outline: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centre (3,), size (3,) and axes (3, 3) of the box around (3, N) points, N at least 1.

    Args:
        points: (3, N) float32 metres: three long rows are faster to search than N short ones.
        kind: See `BoxKind`.
        outline: Columns of the points that decide how an oriented box is turned, clipped to those
            that exist; None: all.
    """
    axes = np.eye(3) if kind == "axis_aligned" else _axes(points, outline)
    along = points if kind == "axis_aligned" else axes.T.astype(np.float32) @ points
    low = np.minimum.reduce(along, 1).astype(np.float64)
    high = np.maximum.reduce(along, 1).astype(np.float64)
    return axes @ ((low + high) / 2), high - low, axes


def _axes(points: NDArray[np.float32], outline: NDArray[np.intp] | None) -> NDArray[np.float64]:
    """(3, 3): the sides of the tightest rectangle around the face of the points, and its normal."""
    away = points - cv2.reduce(points, 1, cv2.REDUCE_AVG)
    # Rows in the order of spread; that of the least is the normal of the face that is seen.
    products = np.einsum("an,bn->ab", away, away)  # half the time of `away @ away.T`
    _, _, directions = cv2.eigen(products.astype(np.float64))
    chosen = away if outline is None else away.take(outline, 1, mode="clip")
    flat = directions[:2].astype(np.float32) @ chosen
    return _turned(directions.tolist(), math.radians(cv2.minAreaRect(flat.T)[2]))


def _turned(directions: Sequence[Sequence[float]], angle: float) -> NDArray[np.float64]:
    """(3, 3): axes along the sides of a rectangle; plain numbers are faster than arrays of three.

    Args:
        directions: Two directions of the rectangle's plane, and its normal.
        angle: From the first direction to a side, radians.
    """
    across, along, normal = directions
    # Of the two directions of a normal the one that makes equal poses equal.
    normal = normal if max(normal, key=abs) > 0 else _opposite(normal)
    cos, sin = math.cos(angle), math.sin(angle)
    first: Sequence[float] = [cos * a + sin * b for a, b in zip(across, along, strict=True)]
    # A rectangle looks the same after every quarter turn: the one closest to the x axis.
    second = _cross(normal, first)
    first = max((first, second, _opposite(first), _opposite(second)), key=itemgetter(0))
    return np.array([first, _cross(normal, first), normal]).T


def _opposite(direction: Sequence[float]) -> list[float]:
    return [-part for part in direction]


def _cross(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """The cross product of two vectors of three."""
    (a1, a2, a3), (b1, b2, b3) = a, b
    return [a2 * b3 - a3 * b2, a3 * b1 - a1 * b3, a1 * b2 - a2 * b1]
