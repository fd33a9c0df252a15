"""The highest score that a dropped query can have, for any text: spheres around what was dropped.

A state h and a text vector t are each split into coordinates in the k directions that texts lie in
(`Head.basis`), and what is left, which is small for texts. With a sphere of centre c and radius r
around the coordinates of some states, and the longest remainder m of them,

    h . t <= c . Bt + r |Bt| + m |t - B'Bt|
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.index.alignment import Head

__all__ = ["Spheres", "enclose", "split"]

_SLACK: Final = 1e-5
"""Added to bounds, as a share of the largest product: more than float32 rounds anywhere."""
_ROUNDS: Final = 3
"""Of the assignment of states to spheres."""


@dataclass(frozen=True, slots=True, eq=False)
class Spheres:
    """Spheres around the dropped queries of F frames, S of them in the order of frames."""

    first: NDArray[np.int64]
    """(F + 1,) where those of each frame begin; the last one is S."""
    centre: NDArray[np.float16]
    """(S, k) coordinates in the directions of `Head.basis`."""
    radius: NDArray[np.float32]
    """(S,) how far the coordinates of its states are from the centre, at most."""
    remainder: NDArray[np.float32]
    """(S,) length of what of its states is outside these directions, at most."""

    def upper_bounds(
        self, vectors: NDArray[np.float32], biases: NDArray[np.float32], head: Head
    ) -> NDArray[np.float32]:
        """The highest logit that a dropped query can have, by frame and text.

        Args:
            vectors: (P, C) text vectors.
            biases: (P,) of the same texts.
            head: Of the index.

        Returns:
            (F, P) float32; -inf in frames where nothing was dropped.
        """
        frames, texts = len(self.first) - 1, len(vectors)
        bounds = np.full((frames, texts), -np.inf, np.float32)
        some = np.flatnonzero(np.diff(self.first))
        if len(some) == 0 or texts == 0:
            return bounds
        inside, outside = split(vectors, head.basis)  # (P, k), (P,)
        centre = self.centre.astype(np.float32)  # (S, k)
        products = centre @ inside.T  # (S, P)
        length = np.linalg.norm(inside, axis=1)  # (P,)
        products += self.radius[:, None] * length + self.remainder[:, None] * outside
        reach = np.linalg.norm(centre, axis=1) + self.radius + self.remainder  # (S,)
        products += np.float32(_SLACK) * reach[:, None] * (length + outside)
        # Frames without a sphere are left out: `reduceat` would give them their neighbour's.
        highest = np.maximum.reduceat(products, self.first[some], axis=0)
        bounds[some] = highest / np.float32(head.scale) + biases
        return bounds


def split(
    vectors: NDArray[np.float32], basis: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates (N, k) of (N, C) vectors in the (k, C) basis, and (N,) lengths of the rest."""
    inside = vectors @ basis.T
    outside = np.linalg.norm(vectors - inside @ basis, axis=1)
    return inside, outside


def enclose(
    states: NDArray[np.float32], basis: NDArray[np.float32], spheres: int
) -> tuple[NDArray[np.float16], NDArray[np.float32], NDArray[np.float32]]:
    """Enclose the states of one frame in at most so many spheres.

    Args:
        states: (M, C) of its dropped queries.
        basis: `Head.basis`.
        spheres: At most; as many states or fewer get one each.

    Returns:
        centres (S, k), radii (S,) and remainders (S,) of S <= spheres.
    """
    inside, outside = split(states, basis)
    owner = _assign(inside, spheres)
    centres, radii, remainders = [], [], []
    for number in np.unique(owner):
        own = inside[owner == number]
        centre = own.mean(axis=0).astype(np.float16)
        # Of the centre as it is stored: its rounding is part of the radius.
        radius = np.linalg.norm(own - centre.astype(np.float32), axis=1).max()
        centres.append(centre)
        radii.append(radius)
        remainders.append(outside[owner == number].max())
    k = basis.shape[0]
    return (
        np.array(centres, np.float16).reshape(-1, k),
        np.array(radii, np.float32),
        np.array(remainders, np.float32),
    )


def _assign(points: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Number of the sphere of each of (M, k) points: k-means, from points far from one another."""
    if len(points) <= count:
        return np.arange(len(points))
    # Farthest point first: a sphere is as bad as the farthest state in it.
    chosen = [0]
    distance = _squares(points, points[:1])[:, 0]
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, _squares(points, points[chosen[-1:]])[:, 0])
    centres = points[chosen]
    owner: NDArray[np.intp] = _squares(points, centres).argmin(axis=1)
    for _ in range(_ROUNDS):
        present = np.unique(owner)
        centres = np.stack([points[owner == number].mean(axis=0) for number in present])
        owner = _squares(points, centres).argmin(axis=1)
    return owner


def _squares(points: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M, G) squared distances."""
    squares: NDArray[np.float32] = np.square(points[:, None] - centres[None]).sum(axis=2)
    return squares
