"""Sentences of size and position, which the text tower must distinguish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

__all__ = ["RELATIONS", "Phrase", "random_phrase"]

RELATIONS: dict[str, tuple[str, ...]] = {
    "none": ("{x}", "the {x}", "a {x}"),
    "biggest": ("the biggest {x}", "the largest {x}", "biggest {x}", "largest {x}"),
    "smallest": ("the smallest {x}", "the tiniest {x}", "smallest {x}", "the littlest {x}"),
    "leftmost": ("the leftmost {x}", "leftmost {x}", "the {x} on the left", "the left {x}"),
    "rightmost": ("the rightmost {x}", "rightmost {x}", "the {x} on the right", "the right {x}"),
    "topmost": ("the topmost {x}", "the highest {x}", "the {x} at the top", "the top {x}"),
    "bottommost": ("the bottommost {x}", "the lowest {x}", "the {x} at the bottom"),
    "left of": ("the {x} left of the {y}", "{x} left of {y}", "the {x} to the left of the {y}"),
    "right of": ("the {x} right of the {y}", "{x} right of {y}", "the {x} to the right of the {y}"),
    "above": ("the {x} above the {y}", "{x} above {y}", "the {x} over the {y}"),
    "below": ("the {x} below the {y}", "{x} below {y}", "the {x} under the {y}"),
    "next to": ("the {x} next to the {y}", "the {x} beside the {y}", "the {x} nearest the {y}"),
}
"""Relation to the ways to express it; `{x}` is described, `{y}` is the landmark."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """A sentence and its parts."""

    text: str
    """The sentence."""
    relation: int
    """Row of `RELATIONS`."""
    meant: str
    """The noun that it describes."""
    landmark: str | None
    """The noun that it refers to, if any."""


def random_phrase(names: Sequence[str], rng: random.Random) -> Phrase:
    """Draw a random sentence about one or two of the names."""
    relation = rng.randrange(len(RELATIONS))
    template = rng.choice(list(RELATIONS.values())[relation])
    meant, landmark = rng.choice(names), rng.choice(names)
    text = template.format(x=meant, y=landmark)
    return Phrase(text, relation, meant, landmark if "{y}" in template else None)
