"""A rigid motion from one coordinate frame to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Transform", "quaternion"]


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """`p -> rotation @ p + translation`."""

    rotation: NDArray[np.float64]
    """(3, 3) float64, orthonormal."""
    translation: NDArray[np.float64]
    """(3,) float64 metres."""

    @classmethod
    def of(cls, translation: Sequence[float], xyzw: Sequence[float]) -> Transform:
        """From a translation in metres and a quaternion x y z w of any length but 0.

        Raises:
            ValueError: the quaternion is 0 or a number is not finite.
        """
        q, t = np.array(xyzw, np.float64), np.array(translation, np.float64)
        norm = np.linalg.norm(q)
        if not (np.isfinite(q).all() and np.isfinite(t).all() and norm > 1e-9):
            raise ValueError(f"no transform: translation {translation}, quaternion {xyzw}")
        x, y, z, w = q / norm
        return cls(
            np.array(
                [
                    [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                    [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                    [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
                ]
            ),
            t,
        )

    def __call__(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3) float32 points in the other frame."""
        return points @ self.rotation.T.astype(np.float32) + self.translation.astype(np.float32)


def quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """The quaternion x y z w of a (3, 3) rotation, w at least 0."""
    # Bar-Itzhack (2000): the eigenvector of the largest eigenvalue, stable for every rotation.
    (a, b, c), (d, e, f), (g, h, i) = rotation
    symmetric = np.array(
        [
            [a - e - i, d + b, g + c, h - f],
            [d + b, e - a - i, h + f, c - g],
            [g + c, h + f, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    found = np.linalg.eigh(symmetric)[1][:, -1]
    x, y, z, w = (float(value) for value in (found if found[3] >= 0 else -found))
    return x, y, z, w
