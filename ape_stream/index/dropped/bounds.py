"""The highest score that a dropped query can have, for any text: spheres around what was dropped.

A state h and a text vector t are each split into coordinates in the k directions that texts lie in
(`Head.basis`), and what is left, which is small for texts. With a sphere of centre c and radius r
around the coordinates of some states, and the longest remainder m of them,

    h . t <= c . Bt + r |Bt| + m |t - B'Bt|
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ape_stream.index.alignment import float32_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ape_stream.index.alignment import Head

    Nearest = Callable[[NDArray[np.float32], int], NDArray[np.intp]]

__all__ = ["Enclosed", "Spheres", "enclose", "nearest_of_far", "split"]

_SLACK: Final = 1e-5
"""Added to bounds, as a share of the largest product: more than float32 rounds anywhere."""


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
    members: NDArray[np.int32]
    """(S,) how many of its queries are kept as coarse states, all or none; see `CoarseStates`."""

    def frame_of(self) -> NDArray[np.intp]:
        """(S,) the frame of each, by its position."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))

    def upper_bounds(
        self, vectors: NDArray[np.float32], biases: NDArray[np.float32], head: Head
    ) -> NDArray[np.float32]:
        """The highest logit that a dropped query can have, by frame and text.

        Returns:
            (F, P) float32; -inf in frames where nothing was dropped.
        """
        frames, texts = len(self.first) - 1, len(vectors)
        bounds = np.full((frames, texts), -np.inf, np.float32)
        some = np.flatnonzero(np.diff(self.first))
        if len(some) and texts:
            # Frames without a sphere are left out: `reduceat` would give them their neighbour's.
            each = self.each(vectors, biases, head)
            bounds[some] = np.maximum.reduceat(each, self.first[some], axis=0)
        return bounds

    def each(
        self, vectors: NDArray[np.float32], biases: NDArray[np.float32], head: Head
    ) -> NDArray[np.float32]:
        """The highest logit that a query of each sphere can have, by text.

        Args:
            vectors: (P, C) text vectors.
            biases: (P,) of the same texts.
            head: Of the index.

        Returns:
            (S, P) float32.
        """
        inside, outside = split(vectors, head.basis)  # (P, k), (P,)
        centre = float32_of(self.centre)  # (S, k)
        products = centre @ inside.T  # (S, P)
        length = np.linalg.norm(inside, axis=1)  # (P,)
        products += self.radius[:, None] * length + self.remainder[:, None] * outside
        reach = (
            np.sqrt(np.einsum("sk,sk->s", centre, centre)) + self.radius + self.remainder
        )  # (S,)
        products += np.float32(_SLACK) * reach[:, None] * (length + outside)
        bounds: NDArray[np.float32] = products / np.float32(head.scale) + biases
        return bounds


def split(
    vectors: NDArray[np.float32], basis: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates (N, k) of (N, C) vectors in the (k, C) basis, and (N,) lengths of the rest."""
    inside = vectors @ basis.T
    return inside, _lengths(vectors - inside @ basis)


def _lengths(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """(N,) as `np.linalg.norm` has them, in half its time."""
    lengths: NDArray[np.float32] = np.sqrt(np.add.reduce(vectors * vectors, axis=1))
    return lengths


@dataclass(frozen=True, slots=True, eq=False)
class Enclosed:
    """Spheres around the states of one frame; see `Spheres`."""

    centre: NDArray[np.float16]
    """(S, k)."""
    radius: NDArray[np.float32]
    """(S,)."""
    remainder: NDArray[np.float32]
    """(S,)."""
    owner: NDArray[np.intp]
    """(M,) the sphere of each state."""


def enclose(
    states: NDArray[np.float32],
    basis: NDArray[np.float32],
    spheres: int,
    form: Nearest | None = None,
) -> Enclosed:
    """Enclose the states of one frame in at most so many spheres.

    Args:
        states: (M, C) of its dropped queries.
        basis: `Head.basis`.
        spheres: At most; as many states or fewer get one each.
        form: A compiled form of `nearest_of_far`.
    """
    k = basis.shape[0]
    if not len(states):
        nothing = np.zeros(0, np.float32)
        return Enclosed(np.zeros((0, k), np.float16), nothing, nothing, np.zeros(0, np.intp))
    inside, outside = split(states, basis)
    squares = np.square(inside).sum(axis=1)
    distances = squares[:, None] + squares - 2 * (inside @ inside.T)  # (M, M), squared
    owner = (form or nearest_of_far)(distances, spheres)
    sizes = np.bincount(owner)
    owner, sizes = (np.cumsum(sizes > 0) - 1)[owner], sizes[sizes > 0]  # equal points share one
    order, starts = np.argsort(owner, kind="stable"), np.cumsum(sizes) - sizes
    means = np.add.reduceat(inside[order], starts, axis=0) / sizes[:, None]
    centre = means.astype(np.float16)
    # Of the centre as it is stored: its rounding is part of the radius.
    away = _lengths(inside - centre.astype(np.float32)[owner])
    radius, remainder = (np.maximum.reduceat(one[order], starts) for one in (away, outside))
    return Enclosed(centre, radius, remainder, owner)


def nearest_of_far(distances: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Number of the sphere of each point: the nearest of some far from one another.

    Farthest point first (Gonzalez, 1985): no choice of centres has radii of less than half.

    Args:
        distances: (M, M) squared, M >= 1.
        count: Of spheres, at most.

    Returns:
        (M,).
    """
    owner = np.zeros(len(distances), np.intp)
    nearest, chosen = distances[0], 0
    for number in range(1, min(count, len(distances))):
        chosen = int(nearest.argmax())
        owner[distances[chosen] < nearest] = number
        nearest = np.minimum(nearest, distances[chosen])
    return owner
