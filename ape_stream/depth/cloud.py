"""The points of all instances of a frame, each with colour, class, instance and score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream.depth.lift import as_depth
from ape_stream.depth.surface import surface
from ape_stream.masks.ops import label_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ape_stream.values.camera import Camera
    from ape_stream.values.depth import Depth
    from ape_stream.values.instances import Instances
    from ape_stream.values.transform import Transform

__all__ = ["Cloud", "cloud"]


@dataclass(frozen=True, slots=True, eq=False)
class Cloud:
    """P points."""

    points: NDArray[np.float32]
    """(P, 3) float32 metres."""
    colors: NDArray[np.uint8]
    """(P, 3) uint8 blue-green-red; zeros without an image."""
    labels: NDArray[np.uint16]
    """(P,) uint16, prompt id + 1."""
    instances: NDArray[np.uint16]
    """(P,) uint16, position of the instance + 1."""
    scores: NDArray[np.float32]
    """(P,) float32, 0..1."""

    def __len__(self) -> int:
        return len(self.points)

    def thinned(self, voxel_m: float) -> Cloud:
        """One point, the mean, for each cube of this side (metres) and instance; 0 keeps all.

        Raises:
            ValueError: the side is negative.
        """
        if voxel_m < 0:
            raise ValueError(f"the side of a voxel is 0 or more, not {voxel_m:g} m")
        if voxel_m == 0 or not len(self):
            return self
        cubes = np.floor(self.points / voxel_m).astype(np.int64)
        cubes -= cubes.min(0)
        sides = cubes.max(0) + 1
        # One number for each cube of each instance.
        keys = (self.instances * sides[0] + cubes[:, 0]) * sides[1] + cubes[:, 1]
        keys = keys * sides[2] + cubes[:, 2]
        _, first, which = np.unique(keys, return_index=True, return_inverse=True)
        counts = np.bincount(which)

        def mean(values: NDArray[Any]) -> NDArray[np.float64]:
            sums = [np.bincount(which, column) for column in values.T]
            return np.stack(sums, -1) / counts[:, None]

        return Cloud(
            mean(self.points).astype(np.float32),
            np.rint(mean(self.colors)).astype(np.uint8),
            self.labels[first],
            self.instances[first],
            self.scores[first],
        )


def cloud(
    instances: Instances,
    depth: NDArray[Any] | Depth,
    camera: Camera | None = None,
    *,
    image: NDArray[np.uint8] | None = None,
    voxel_m: float = 0.0,
    to: Transform | None = None,
) -> Cloud:
    """The masked points at the resolution of the depth, the background left out as in `lift`.

    Where masks overlap, a point belongs to the smaller one, as in a label map. A model that gives
    boxes only makes no points.

    Args:
        instances: What was found in an image of the camera.
        depth: See `lift`.
        camera: The camera of the image.
        image: (H, W, 3) uint8 blue-green-red, for the colours.
        voxel_m: Side of the cubes of which one point is kept, metres; 0 keeps all points.
        to: From the camera's frame to that of the points.

    Raises:
        ValueError: the depth is not of this camera, or a mask is outside the image.
    """
    depth = as_depth(depth, camera, instances.size)
    step = max(1, depth.camera.size[0] // depth.values.shape[0])
    owners = label_map(instances.masks or (), instances.size)
    parts = [
        part
        for k in range(len(instances.masks or ()))
        if (part := _part(instances, k, depth, owners, image, step)) is not None
    ]
    made = Cloud(
        _joined([part.points for part in parts], (0, 3), np.float32),
        _joined([part.colors for part in parts], (0, 3), np.uint8),
        _joined([part.labels for part in parts], (0,), np.uint16),
        _joined([part.instances for part in parts], (0,), np.uint16),
        _joined([part.scores for part in parts], (0,), np.float32),
    ).thinned(voxel_m)
    if to is None:
        return made
    return Cloud(to(made.points), made.colors, made.labels, made.instances, made.scores)


def _joined(parts: list[NDArray[Any]], empty: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(empty, dtype), *parts])


def _part(
    found: Instances,
    k: int,
    depth: Depth,
    owners: NDArray[np.uint16],
    image: NDArray[np.uint8] | None,
    step: int,
) -> Cloud | None:
    """The points of one instance."""
    assert found.masks is not None  # noqa: S101 (without masks there are no parts)
    seen = surface(found.masks[k], depth, step)
    if seen is None:
        return None
    grid = np.ix_(seen.rows, seen.columns)
    keep = seen.keep & (owners[grid] == k + 1)
    # As measured: smoothing is for boxes.
    points = seen.points(depth.camera, seen.raw, np.flatnonzero(keep)).T
    count = len(points)
    return Cloud(
        points,
        np.zeros((count, 3), np.uint8) if image is None else image[grid][keep],
        np.full(count, int(found.prompt_ids[k]) + 1, np.uint16),
        np.full(count, k + 1, np.uint16),
        np.full(count, found.scores[k], np.float32),
    )
