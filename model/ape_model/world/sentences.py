"""Sentences about scenes: phrases of size and position that are true of exactly one region.

A scene shows two or three things of the same name, so that the name alone is ambiguous. A phrase is
made only where its relation is clear: every threshold below leaves out the doubtful cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ape_model.world.scene import Scene
    from ape_model.world.words import Vocabulary

__all__ = ["Phrase", "SentenceScene", "phrases_of"]

SIZE_RATIO = 1.35
"""A thing is bigger than another where its longer side is at least this many times as long."""
POSITION_GAP = 0.10
"""A thing is left of (above) another where the centres differ by this part of the frame's side."""
EXTREMES = {"leftmost": (-1, 0), "rightmost": (1, 0), "topmost": (0, -1), "lowest": (0, 1)}
"""Adjectives of position, and the direction (x, y) of each."""
SIDES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
"""Relations between two things, and the direction (x, y) of each."""
STANDS_ON = 0.8
"""A thing is on a stuff where at least this part of it covers that region."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """A description of one region of a scene and of no other."""

    text: str
    """The sentence, such as "the red apple left of the taxi"."""
    target: int
    """Id of the instance that it describes."""
    distractors: tuple[int, ...]
    """Ids of the other instances of the same name; at least one."""
    relation: str
    """How it differs from them: by "size", "extreme", "relative" (position) or "on"."""


@dataclass(frozen=True, slots=True, eq=False)
class SentenceScene:
    """A scene and the phrases that describe its things."""

    scene: Scene
    """The image with its truth."""
    phrases: tuple[Phrase, ...]
    """At least one phrase, in a fixed order."""


@dataclass(frozen=True, slots=True)
class _Thing:
    """A thing with its measures, pixels."""

    id: int
    class_id: int
    name: str
    x: float
    y: float
    """Centre of the box of what is visible."""
    side: float
    """Longer side of that box."""
    ground: int | None
    """Class id of the stuff that it is on, None where it is on several."""


def _things(scene: Scene, ground: NDArray[np.int32], words: Vocabulary) -> list[_Thing]:
    """The things of a scene, measured by what is visible of them.

    Args:
        scene: The finished scene.
        ground: (H, W) int32 class ids of the stuff, as if there were no things.
        words: The vocabulary.
    """
    found = []
    for instance in scene.instances:
        if instance.stuff:
            continue
        x1, y1, x2, y2 = instance.box
        stuffs, counts = np.unique(ground[scene.mask(instance)], return_counts=True)
        on = int(stuffs[counts.argmax()]) if counts.max() >= STANDS_ON * counts.sum() else None
        found.append(
            _Thing(
                id=instance.id,
                class_id=instance.class_id,
                name=words.names[instance.class_id],
                x=(x1 + x2) / 2,
                y=(y1 + y2) / 2,
                side=max(x2 - x1, y2 - y1),
                ground=on,
            )
        )
    return found


def _ahead(values: list[float], gap: float) -> int | None:
    """Index of the largest value, where it is at least `gap` above the second largest."""
    second, first = np.argsort(values)[-2:]  # ascending
    return int(first) if values[first] - values[second] >= gap else None


def _size_phrases(same: list[_Thing]) -> Iterator[tuple[str, _Thing]]:
    name = same[0].name
    more = ("bigger", "smaller") if len(same) == 2 else ("biggest", "smallest")
    for word, sign in zip(more, (1, -1), strict=True):
        # On a logarithmic scale, a ratio of sides is a difference.
        found = _ahead([sign * log(p.side) for p in same], log(SIZE_RATIO))
        if found is not None:
            yield f"the {word} {name}", same[found]


def _extreme_phrases(same: list[_Thing], size: tuple[int, int]) -> Iterator[tuple[str, _Thing]]:
    name = same[0].name
    height, width = size
    for word, (dx, dy) in EXTREMES.items():
        found = _ahead([dx * p.x / width + dy * p.y / height for p in same], POSITION_GAP)
        if found is not None:
            yield f"the {word} {name}", same[found]


def _relative_phrases(
    same: list[_Thing], others: list[_Thing], size: tuple[int, int]
) -> Iterator[tuple[str, _Thing]]:
    """Relations to another thing, which must be the only one of its name."""
    height, width = size
    for other in others:
        if sum(o.class_id == other.class_id for o in others) > 1:
            continue
        for words, (dx, dy) in SIDES.items():
            # How far each thing is on that side of the other one, in parts of the frame's side.
            ahead = {
                p.id: dx * (p.x - other.x) / width + dy * (p.y - other.y) / height for p in same
            }
            right = [p for p in same if ahead[p.id] >= POSITION_GAP]
            wrong = [p for p in same if ahead[p.id] <= -POSITION_GAP / 2]
            # With a third thing nearly level with the other one, the phrase would be doubtful.
            if len(right) == 1 and len(right) + len(wrong) == len(same):
                yield f"the {same[0].name} {words} the {other.name}", right[0]


def _on_phrases(same: list[_Thing], words: Vocabulary) -> Iterator[tuple[str, _Thing]]:
    # A thing on the border of two stuffs might count as being on either.
    if any(p.ground is None for p in same):
        return
    for ground in sorted({p.ground for p in same if p.ground is not None}):
        there = [p for p in same if p.ground == ground]
        if len(there) == 1:
            yield f"the {same[0].name} on the {words.names[ground]}", there[0]


def _about(
    same: list[_Thing], others: list[_Thing], words: Vocabulary, size: tuple[int, int]
) -> Iterator[Phrase]:
    """All phrases about the things of one name."""
    by_relation = {
        "size": _size_phrases(same),
        "extreme": _extreme_phrases(same, size),
        "relative": _relative_phrases(same, others, size),
        "on": _on_phrases(same, words),
    }
    for relation, pairs in by_relation.items():
        for text, target in pairs:
            rest = tuple(p.id for p in same if p.id != target.id)
            yield Phrase(text, target.id, rest, relation)


def phrases_of(scene: Scene, ground: NDArray[np.int32], words: Vocabulary) -> tuple[Phrase, ...]:
    """All phrases about the names that occur more than once in a scene.

    Args:
        scene: The finished scene.
        ground: (H, W) int32 class ids of the stuff, as if there were no things.
        words: The vocabulary.
    """
    things = _things(scene, ground, words)
    phrases: list[Phrase] = []
    for class_id in sorted({p.class_id for p in things}):
        same = [p for p in things if p.class_id == class_id]
        others = [p for p in things if p.class_id != class_id]
        if len(same) > 1:
            phrases += _about(same, others, words, scene.instance_map.shape)
    return tuple(phrases)
