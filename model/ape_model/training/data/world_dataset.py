"""Endless training batches of the drawn world; batch k is a function of the seed and k alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING

import cv2
import numpy as np
from torch.utils.data import Dataset

from ape_cuda_ops.resize import resize_bytes
from ape_model.training.data.batch import Batch, Example, collate
from ape_model.training.ranges import check_at_least, check_share
from ape_model.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ape_model.config import NanoConfig
    from ape_model.world import Scene
    from ape_model.world.sentences import Phrase

__all__ = ["Canvas", "Phase", "WorldBatches", "taking_turns"]

SEEDS_PER_STEP = 1024
"""Seeds set aside for the scenes of one step, in all processes: no two steps share a scene."""
LEAST_SIDE = 96
"""Smallest side, pixels: `World.sentence_scene` draws no smaller image."""
FIRST_SEED = 1_000_000_000
"""Training scenes begin here: lower seeds are for validation and tests."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """A kind of batch."""

    height: int = 0
    """Pixels; batches are padded to multiples of 32, as in inference. 0, with width 0: both from
    the images of the data sets, their shape and how small their regions are."""
    width: int = 0
    """Pixels, likewise."""
    batch: int = 8
    """Images at once, of each process; where the sides come from the data, of 160 pixels in
    length: of larger ones as many as have as many pixels, at least 2."""
    most: int = 6
    """Most things in a drawn image."""
    vary: float = 0.0
    """How much of its sides an image may lack, 0..1; the images of a batch then differ in size
    and shape, and the rest is padding."""
    zoom: float = 1.0
    """A scene is drawn up to this many times as large and then resized down, as a large frame is:
    its things are that much smaller."""
    names: float = 1.0
    """How often it is drawn for a batch of names, over the sum of all canvases."""
    sentences: float = 1.0
    """How often it is drawn for a batch of sentences, over the sum of all canvases."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        check_at_least(self, 1, "batch", "most", "zoom")
        check_at_least(self, 1 if self.has_sides else 0, "height", "width")
        check_share(self, "vary", below_1=True)
        check_at_least(self, 0, "names", "sentences")

    @property
    def has_sides(self) -> bool:
        """Whether its sides are given, not taken from the data."""
        return (self.height, self.width) != (0, 0)

    def draw(self, rng: random.Random) -> tuple[int, int]:
        """Draw height and width of one image."""
        if not self.vary:
            return self.height, self.width
        sides = (self.height, self.width)
        # A canvas that is itself smaller than LEAST_SIDE keeps its size.
        least = [min(side, max(LEAST_SIDE, (1 - self.vary) * side)) for side in sides]
        height, width = (
            round(rng.uniform(low, side)) for low, side in zip(least, sides, strict=True)
        )
        return height, width


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a run."""

    first: int
    """Its first step."""
    canvases: tuple[Canvas, ...]
    """Drawn from at random, one for each batch."""
    sentence_share: float = 0.0
    """Share of the world's batches whose prompts are sentences, 0..1."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        check_at_least(self, 0, "first")
        check_share(self, "sentence_share")
        if not any(c.names for c in self.canvases) or not any(c.sentences for c in self.canvases):
            raise ValueError("at least one canvas is for names, and one for sentences")
        drawn = [c for c in self.canvases if c.sentences and c.has_sides]
        if self.sentence_share and any(min(c.height, c.width) < LEAST_SIDE for c in drawn):
            raise ValueError(f"a canvas for sentences has sides of at least {LEAST_SIDE} pixels")

    def choose(self, rng: random.Random, *, sentences: bool = False) -> Canvas:
        """Draw the canvas of one batch."""
        weights = [c.sentences if sentences else c.names for c in self.canvases]
        return rng.choices(self.canvases, weights)[0]


class WorldBatches(Dataset["Batch"]):
    """A map-style data set of whole batches.

    Args:
        phases: Parts of the run, ascending, the first from step 0.
        seed: Of the run.
        network: Sizes of the network.
        steps: Length of the run.
        rank: Of this process among several: all draw the same kind of batch, each its own scenes.
    """

    def __init__(
        self,
        phases: tuple[Phase, ...],
        *,
        seed: int,
        network: NanoConfig,
        steps: int,
        rank: int = 0,
    ) -> None:
        self.phases, self.seed, self.network = phases, seed, network
        self.steps = steps
        self.rank = rank
        self.worlds: dict[int, World] = {}

    def __len__(self) -> int:
        """Steps of the run."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Draw the batch of one step."""
        rng = random.Random(f"{self.seed}/{step}")  # noqa: S311 - a seed, not a secret
        phase = [s for s in self.phases if s.first <= step][-1]
        sentences = rng.random() < phase.sentence_share
        canvas = phase.choose(rng, sentences=sentences)
        world = self._world(canvas.most)
        # A scene's seed holds the run's seed, the step, the process and the image, in this order.
        first = FIRST_SEED * (self.seed + 1) + step * SEEDS_PER_STEP + self.rank * canvas.batch
        seeds = range(first, first + canvas.batch)
        make = _with_sentences if sentences else _with_names
        # Sizes and zooms differ between processes; the kind of batch, above, must not.
        shapes = random.Random(f"{self.seed}/{step}/{self.rank}")  # noqa: S311
        examples = [
            _drawn(make, world, seed, canvas.draw(shapes), shapes.uniform(1, canvas.zoom))
            for seed in seeds
        ]
        return collate(examples, self.network)

    def unseen(self, seed: int) -> Example:
        """A scene that no run trains on, on the last phase's first canvas."""
        canvas = self.phases[-1].canvases[0]
        return _with_names(World(), seed, (canvas.height, canvas.width))

    def _world(self, most: int) -> World:
        if most not in self.worlds:
            self.worlds[most] = World(max_objects=most)
        return self.worlds[most]


def _drawn(
    make: Callable[[World, int, tuple[int, int]], Example],
    world: World,
    seed: int,
    size: tuple[int, int],
    zoom: float,
) -> Example:
    """Draw a scene `zoom` times as large as `size` and resize it down, as a frame is."""
    if zoom == 1:
        return make(world, seed, size)
    large = round(size[0] * zoom), round(size[1] * zoom)
    example = make(world, seed, large)
    share = np.array([size[1] / large[1], size[0] / large[0]] * 2, np.float32)  # of x, y, x, y
    return replace(
        example,
        image=resize_bytes(example.image, size),
        ids=np.asarray(
            cv2.resize(example.ids, size[::-1], interpolation=cv2.INTER_NEAREST), np.int32
        ),
        boxes=example.boxes * share,
    )


def _with_names(world: World, seed: int, size: tuple[int, int]) -> Example:
    return _example(world.scene(seed, size))


def taking_turns(phrases: Sequence[Phrase], rng: random.Random) -> list[Phrase]:
    """Shuffle phrases so that the relations take turns: the rare ones come early.

    Args:
        phrases: Of one scene; most of them are extremes.
        rng: Source of chance.
    """
    by_relation: dict[str, list[Phrase]] = {}
    for phrase in rng.sample(phrases, len(phrases)):
        by_relation.setdefault(phrase.relation, []).append(phrase)
    rounds = zip_longest(*by_relation.values())
    return [phrase for turn in rounds for phrase in turn if phrase is not None]


def _with_sentences(world: World, seed: int, size: tuple[int, int], most: int = 6) -> Example:
    described = world.sentence_scene(seed, size)
    example = _example(described.scene)
    rows = {instance.id: row for row, instance in enumerate(described.scene.instances)}
    rng = random.Random(seed)  # noqa: S311
    chosen = taking_turns(described.phrases, rng)[: rng.randint(1, most)]
    sentences = tuple((p.text, rows[p.target]) for p in chosen)
    return Example(example.image, example.ids, example.boxes, example.classes, sentences)


def _example(scene: Scene) -> Example:
    """Number a scene's instances by row."""
    # A table from id to row; ignored instances stay 0, which is no region.
    rows = np.zeros(1 + int(scene.instance_map.max()), np.int32)
    for row, instance in enumerate(scene.instances, start=1):
        rows[instance.id] = row
    return Example(
        image=scene.image,
        ids=rows[scene.instance_map],
        boxes=np.array([i.box for i in scene.instances], np.float32).reshape(-1, 4),
        classes=np.array([i.class_id for i in scene.instances], np.int64),
    )
