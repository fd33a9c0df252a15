"""Videos of the drawn world: every frame is a function of the seed and its time alone.

Nothing is simulated step by step, so the frames of an endless video can be drawn in any order and
always look the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, pi, sin
from typing import TYPE_CHECKING

import numpy as np

from ape_model.world.scene import Actor, Compositor, Scene, random_backdrop
from ape_model.world.sprites import Pose

if TYPE_CHECKING:
    from ape_model.world.words import Vocabulary

__all__ = ["VideoScene"]

LANE_FILL = 1.4
"""Largest side of a thing in lane heights; above 1, so that neighbours overlap in part."""
SWAY = 0.1
"""How far a thing moves up and down from the middle of its lane, in lane heights."""


@dataclass(frozen=True, slots=True)
class _Lane:
    """A horizontal strip of the image that things cross one after the other."""

    centre: float
    """Row of the strip's middle, pixels."""
    height: float
    """Distance to the next lane, pixels."""
    period_s: float
    """Duration of a crossing; the next thing enters when the last one has left."""
    phase: float
    """Part of the first crossing that is done at time 0, 0..1."""


class VideoScene:
    """A video with exact truth: masks, and track ids that are never used twice.

    Made by `World.video`, which checks the arguments. The first ids (1..3) belong to the stuff
    regions; a thing keeps its id from the frame in which it enters to the one in which it leaves.
    """

    def __init__(
        self,
        words: Vocabulary,
        seed: int,
        size: tuple[int, int],
        fps: float,
        object_px: tuple[float, float],
        class_ids: tuple[int, ...],
        full_occlusion: bool,  # noqa: FBT001 (World.video takes it by name)
    ) -> None:
        self.size = size
        self.fps = fps
        self._words = words
        self._seed = seed
        self._object_px = object_px
        self._class_ids = class_ids
        rng = np.random.default_rng((seed, 0))
        self._backdrop = random_backdrop(rng, words, int(rng.integers(2, 4)))
        self._drift = float(rng.choice((-1, 1)) * rng.uniform(4, 10))
        self._lanes = self._make_lanes(rng, full_occlusion=full_occlusion)

    def _make_lanes(self, rng: np.random.Generator, *, full_occlusion: bool) -> tuple[_Lane, ...]:
        height = self.size[0]
        # Two to five lanes, none much narrower than the largest thing.
        limit = max(2, min(5, int(height // (0.65 * self._object_px[1]))))
        count = int(rng.integers(max(2, limit - 1), limit + 1))
        pitch = height / count
        lanes = []
        for k in range(count):
            centre = (k + 0.5) * pitch
            if full_occlusion:  # lanes on top of each other
                centre = float(rng.uniform(0.3, 0.7)) * height
            period, phase = float(rng.uniform(6, 12)), float(rng.uniform(0.1, 0.9))
            lanes.append(_Lane(centre, pitch, period, phase))
        return tuple(lanes)

    def scene(self, index: int) -> Scene:
        """Draw the frame at this index (>= 0), with its truth."""
        time = index / self.fps
        pan = 6 * sin(time / 3), self._drift * time  # sways up and down, drifts sideways; pixels
        compositor = Compositor(self._words, self._backdrop, self.size, pan)
        for k, lane in enumerate(self._lanes):
            compositor.add(self._actor(k, lane, time))
        return compositor.scene()

    def _actor(self, k: int, lane: _Lane, time: float) -> Actor:
        """The thing that is crossing a lane at this time."""
        progress = time / lane.period_s + lane.phase
        visit = floor(progress)  # how many things have crossed this lane before
        rng = np.random.default_rng((self._seed, 1 + k, visit))  # the same in all its frames
        class_id = int(rng.choice(self._class_ids))
        id_ = 1 + len(self._backdrop) + visit * len(self._lanes) + k
        return Actor(id_, class_id, self._pose(rng, lane, class_id, progress - visit))

    def _pose(self, rng: np.random.Generator, lane: _Lane, class_id: int, progress: float) -> Pose:
        """Where a thing is after this part (0..1) of its crossing."""
        low, high = self._object_px
        high = min(high, LANE_FILL * lane.height)
        low = min(max(low, 0.5 * high), high)  # tiny things could not be tracked by eye
        turns, phases = rng.uniform(0.5, 1.5, 3), rng.uniform(0, 2 * pi, 3)
        swing = np.sin(2 * pi * turns * progress + phases)
        side = low + (high - low) * (0.5 + 0.5 * float(swing[0]))
        direction = float(rng.choice((-1, 1)))
        # The path starts and ends outside: a turned sprite reaches 0.67 sides from its centre.
        reach = self.size[1] + 2 * 0.67 * high
        # Slower in the middle of the image than at its edges.
        eased = progress - 0.5 + 0.06 * sin(4 * pi * progress)
        first, last = self._words.cells[class_id]
        return Pose(
            cell=int(rng.integers(first, last)),
            x=self.size[1] / 2 + direction * reach * eased,
            y=lane.centre + SWAY * lane.height * float(swing[1]),
            side=side,
            angle=25 * float(swing[2]),
            flip=bool(rng.integers(2)),
            light=float(rng.uniform(0.85, 1.1)),
        )
