"""The drawn world: images and videos without end whose truth is known exactly."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from ape_model.world.scene import Actor, Compositor, Scene, random_backdrop
from ape_model.world.sentences import SentenceScene, phrases_of
from ape_model.world.sprites import Pose
from ape_model.world.video import VideoScene
from ape_model.world.words import WorldPrompt, load_vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["World"]

KEEP_VISIBLE = 0.6
"""A sprite may hide at most 40 % of another one."""
TRIES = 8
"""Positions tried for one sprite before it is left out."""


class World:
    """Renders scenes of named things on named stuffs; the same seed gives the same pixels.

    Args:
        object_px: Range of a sprite's longer side, pixels. It does not depend on the image's size:
            a small training image and a large scene show things of the same size.
        max_objects: Upper limit of sprites in a scene; at least one is drawn.
    """

    def __init__(
        self, *, object_px: tuple[float, float] = (24.0, 88.0), max_objects: int = 6
    ) -> None:
        if not 8 <= object_px[0] <= object_px[1]:
            raise ValueError(f"object_px is smallest, largest and at least 8, got {object_px}")
        if max_objects < 1:
            raise ValueError(f"max_objects is at least 1, got {max_objects}")
        self.words = load_vocabulary()
        self.object_px = object_px
        self.max_objects = max_objects

    @property
    def names(self) -> tuple[str, ...]:
        """Main name of every class: things first, then stuffs."""
        return self.words.names

    @property
    def things(self) -> int:
        """How many of the names are things; the others are stuff."""
        return self.words.things

    @property
    def prompts(self) -> tuple[WorldPrompt, ...]:
        """Every prompt with the classes it is true of; the main names come first."""
        return self.words.prompts

    @property
    def truth(self) -> NDArray[np.bool_]:
        """(prompts, classes) bool: which prompt is true of which class."""
        return self.words.truth

    def scene(self, seed: int, size: tuple[int, int] = (256, 256)) -> Scene:
        """Draw a scene of random things.

        Args:
            seed: Any integer >= 0.
            size: Height and width in pixels, each at least 16.

        Raises:
            ValueError: the seed or the size is out of range.
        """
        if seed < 0 or min(size) < 16:
            raise ValueError(f"a scene needs seed >= 0 and sides >= 16, got {seed} and {size}")
        rng = np.random.default_rng((seed, *size))
        backdrop = random_backdrop(rng, self.words, int(rng.integers(1, 4)))
        compositor = Compositor(self.words, backdrop, size)
        for k in range(int(rng.integers(1, self.max_objects + 1))):
            class_id = int(rng.integers(self.things))
            self._add_thing(rng, compositor, len(backdrop) + 1 + k, class_id)
        return compositor.scene()

    def sentence_scene(self, seed: int, size: tuple[int, int] = (256, 256)) -> SentenceScene:
        """Draw a scene with two or three things of one name, and phrases that mean one of them.

        Args:
            seed: Any integer >= 0.
            size: Height and width in pixels, each at least 96.

        Raises:
            ValueError: the seed or the size is out of range.
        """
        if seed < 0 or min(size) < 96:
            raise ValueError(
                "sentences need a seed of 0 or more and images of 96x96 pixels or more, got"
                f" {seed} and {size[1]}x{size[0]}"
            )
        # A few layouts allow no sentence: draw another one, from the next random stream.
        for attempt in count():
            rng = np.random.default_rng((seed, *size, 1 + attempt))
            scene, ground = self._crowd(rng, size)
            phrases = phrases_of(scene, ground, self.words)
            if phrases:
                break
        return SentenceScene(scene, phrases)

    def _crowd(
        self, rng: np.random.Generator, size: tuple[int, int]
    ) -> tuple[Scene, NDArray[np.int32]]:
        """A scene with several things of one name, and the (H, W) class ids of its stuff alone."""
        backdrop = random_backdrop(rng, self.words, int(rng.integers(1, 4)))
        compositor = Compositor(self.words, backdrop, size)
        # Taken before things are drawn: the map holds only regions, whose ids are 1, 2, ...
        ground = np.asarray([region.class_id for region in backdrop], np.int32)[compositor.ids - 1]
        noun, *others = rng.choice(self.things, int(rng.integers(2, 4)), replace=False).tolist()
        cast = [noun] * int(rng.integers(2, 4)) + others
        for k, class_id in enumerate(cast):
            self._add_thing(rng, compositor, len(backdrop) + 1 + k, class_id)
        return compositor.scene(), ground

    def video(
        self,
        seed: int,
        size: tuple[int, int] = (240, 320),
        *,
        fps: float = 30.0,
        cast: tuple[str, ...] = (),
        full_occlusion: bool = False,
    ) -> VideoScene:
        """Make a video of moving things; its frames can be drawn in any order.

        Args:
            seed: Any integer >= 0.
            size: Height and width in pixels, each at least 64.
            fps: Frames per second, above 0; a thing's speed is per second.
            cast: Main names of the things that may appear; empty: all.
            full_occlusion: True: a thing may be hidden completely by another. False: each keeps to
                its lane, so that neighbours overlap in part at most.

        Raises:
            ValueError: a value is out of range, or a name is not a thing of this world.
        """
        if seed < 0 or min(size) < 64 or not fps > 0:
            raise ValueError(
                f"a video needs seed >= 0, sides >= 64 and fps > 0, got {seed}, {size}, {fps}"
            )
        names = self.names[: self.things]
        unknown = [name for name in cast if name not in names]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a thing of this world; see `names`")
        class_ids = tuple(names.index(name) for name in cast) or tuple(range(self.things))
        return VideoScene(self.words, seed, size, fps, self.object_px, class_ids, full_occlusion)

    def film(self, seed: int, size: tuple[int, int] = (240, 320), **options: Any) -> VideoScene:
        """Former name of `video`, kept for one release."""
        return self.video(seed, size, **options)

    def _add_thing(
        self, rng: np.random.Generator, compositor: Compositor, id_: int, class_id: int
    ) -> Actor | None:
        """Draw one thing at a random position; None where all tries would hide too much."""
        first, last = self.words.cells[class_id]
        cell = int(rng.integers(first, last))
        for _ in range(TRIES):
            actor = Actor(id_, class_id, self._random_pose(rng, cell, compositor.size))
            if compositor.add(actor, KEEP_VISIBLE):
                return actor
        return None

    def _random_pose(self, rng: np.random.Generator, cell: int, size: tuple[int, int]) -> Pose:
        """A pose in a frame of (height, width); its size is log-uniform, at most 3/4 of it."""
        low, high = np.log(self.object_px)
        side = min(float(np.exp(rng.uniform(low, high))), 0.75 * min(size))
        height, width = size
        inset = 0.35 * side  # at most a small part of the sprite is cut off by the frame
        return Pose(
            cell=cell,
            x=float(rng.uniform(inset, width - inset)),
            y=float(rng.uniform(inset, height - inset)),
            side=side,
            angle=float(rng.uniform(-25, 25)),
            flip=bool(rng.integers(2)),
            light=float(rng.uniform(0.75, 1.1)),
        )
