"""Endless training batches of the drawn world; batch k is a function of the seed and k alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Dataset

from ape_model.training.data.batch import Batch, Example, collate
from ape_model.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_model.world import Scene
    from ape_model.world.sentences import Phrase

__all__ = ["Canvas", "SceneBatches", "Stage", "taking_turns"]

SEEDS_PER_STEP = 1024
FIRST_SEED = 1_000_000_000
"""Training scenes begin here: lower seeds are for validation and tests."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """A kind of batch."""

    height: int
    """Pixels, a multiple of 32."""
    width: int
    """Pixels, a multiple of 32."""
    batch: int
    """Pictures at once, of each process."""
    most: int = 6
    """Most things in a drawn picture."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        if min(self.height, self.width, self.batch, self.most) < 1:
            raise ValueError("height, width, batch and most of a canvas are at least 1")


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a run."""

    first: int
    """Its first step."""
    canvases: tuple[Canvas, ...]
    """Drawn from at random, one for each batch."""
    sentence_share: float = 0.0
    """Share of the world's batches that speak in sentences, 0..1."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range.
        """
        if self.first < 0 or not 0 <= self.sentence_share <= 1:
            raise ValueError("first is 0 or more, sentence_share 0..1")


class SceneBatches(Dataset["Batch"]):
    """A map-style data set of whole batches.

    Args:
        stages: parts of the run, ascending, the first from step 0.
        seed: of the run.
        unit: pixels that coordinate 1.0 stands for.
        steps: length of the run.
        rank: of this process among several: all draw the same kind of batch, each its own scenes.
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        *,
        seed: int,
        unit: int,
        steps: int,
        rank: int = 0,
    ) -> None:
        self.stages, self.seed, self.unit = stages, seed, unit
        self.steps = steps
        self.rank = rank
        self.worlds: dict[int, World] = {}

    def __len__(self) -> int:
        """Steps of the run."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Draw the batch of one step."""
        rng = random.Random(f"{self.seed}/{step}")  # noqa: S311 - a seed, not a secret
        stage = [s for s in self.stages if s.first <= step][-1]
        canvas = rng.choice(stage.canvases)
        speaking = rng.random() < stage.sentence_share
        world = self._world(canvas.most)
        size = (canvas.height, canvas.width)
        first = FIRST_SEED * (self.seed + 1) + step * SEEDS_PER_STEP + self.rank * canvas.batch
        seeds = range(first, first + canvas.batch)
        make = _speaking if speaking else _naming
        return collate([make(world, s, size) for s in seeds], self.unit)

    def unseen(self, seed: int) -> Example:
        """A scene that no run trains on, on the last stage's first canvas."""
        canvas = self.stages[-1].canvases[0]
        return _naming(World(), seed, (canvas.height, canvas.width))

    def _world(self, most: int) -> World:
        if most not in self.worlds:
            self.worlds[most] = World(max_objects=most)
        return self.worlds[most]


def _naming(world: World, seed: int, size: tuple[int, int]) -> Example:
    return _example(world.scene(seed, size))


def taking_turns(phrases: Sequence[Phrase], rng: random.Random) -> list[Phrase]:
    """Shuffle phrases so that the relations take turns: the rare ones come early.

    Args:
        phrases: of one scene; most of them are extremes.
        rng: source of chance.
    """
    by_relation: dict[str, list[Phrase]] = {}
    for phrase in rng.sample(phrases, len(phrases)):
        by_relation.setdefault(phrase.relation, []).append(phrase)
    rounds = zip_longest(*by_relation.values())
    return [phrase for turn in rounds for phrase in turn if phrase is not None]


def _speaking(world: World, seed: int, size: tuple[int, int], most: int = 6) -> Example:
    spoken = world.sentence_scene(seed, size)
    example = _example(spoken.scene)
    rows = {instance.id: row for row, instance in enumerate(spoken.scene.instances)}
    rng = random.Random(seed)  # noqa: S311
    said = taking_turns(spoken.phrases, rng)[: rng.randint(1, most)]
    sentences = tuple((p.text, rows[p.target]) for p in said)
    return Example(example.image, example.ids, example.boxes, example.classes, sentences)


def _example(scene: Scene) -> Example:
    """Number a scene's instances by row."""
    rows = np.zeros(1 + int(scene.instance_map.max()), np.int32)
    for row, instance in enumerate(scene.instances, start=1):
        rows[instance.id] = row
    return Example(
        image=scene.image,
        ids=rows[scene.instance_map],
        boxes=np.array([i.box for i in scene.instances], np.float32).reshape(-1, 4),
        classes=np.array([i.class_id for i in scene.instances], np.int64),
    )
