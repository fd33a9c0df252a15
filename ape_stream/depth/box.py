"""Boxes around points: along given axes, or turned to fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import cv2
import numpy as np

if TYPE_CHECKING:
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
        outline: Columns of the points that decide how an oriented box is turned; None: all.
    """
    axes = np.eye(3) if kind == "axis_aligned" else _axes(points, outline)
    along = points if kind == "axis_aligned" else axes.T.astype(np.float32) @ points
    low, high = along.min(1).astype(np.float64), along.max(1).astype(np.float64)
    return axes @ ((low + high) / 2), high - low, axes


def _axes(points: NDArray[np.float32], outline: NDArray[np.intp] | None) -> NDArray[np.float64]:
    """(3, 3): the sides of the tightest rectangle around the face of the points, and its normal."""
    away = points - np.add.reduce(points, 1, keepdims=True) / np.float32(points.shape[1])
    # Rows in the order of spread; that of the least is the normal of the face that is seen.
    _, _, directions = cv2.eigen((away @ away.T).astype(np.float64))
    normal = directions[2]
    # Of the two directions of a normal the one that makes equal poses equal.
    normal = normal if max(normal.tolist(), key=abs) > 0 else -normal
    flat = directions[:2]
    chosen = away if outline is None else away.take(outline, 1)
    degrees = cv2.minAreaRect(chosen.T @ flat.T.astype(np.float32))[2]
    angle = math.radians(degrees)
    first = math.cos(angle) * flat[0] + math.sin(angle) * flat[1]
    # A rectangle looks the same after every quarter turn: the one closest to the x axis.
    second = _cross(normal, first)
    first = max((first, second, -first, -second), key=lambda side: float(side[0]))
    return np.array([first, _cross(normal, first), normal]).T


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cross product of two (3,) vectors; np.cross takes twenty times as long."""
    (a1, a2, a3), (b1, b2, b3) = a.tolist(), b.tolist()
    return np.array([a2 * b3 - a3 * b2, a3 * b1 - a1 * b3, a1 * b2 - a2 * b1])
