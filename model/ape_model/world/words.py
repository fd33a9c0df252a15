"""The vocabulary of the drawn world: its classes, and the prompts that are true of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ASSETS", "Vocabulary", "WorldPrompt", "load_vocabulary"]

ASSETS = Path(__file__).resolve().parent.parent / "assets"


@dataclass(frozen=True, slots=True)
class WorldPrompt:
    """A name of one class or, such as "dog" or "fruit", of several."""

    text: str
    """The words."""
    class_ids: tuple[int, ...]
    """The classes it is true of, ascending; at least one."""


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """All classes, things first, then stuffs; a class id is a position in `names`."""

    names: tuple[str, ...]
    """Main name of each of C classes, all different."""
    synonyms: tuple[tuple[str, ...], ...]
    """Other names of each class that fit no other class."""
    things: int
    """Number of thing classes; class ids from here on are stuff."""
    prompts: tuple[WorldPrompt, ...]
    """P prompts: the main names (prompt k = class k), all synonyms, then the kinds."""
    truth: NDArray[np.bool_]
    """(P, C) bool, read-only: prompt p is true of class c."""
    cells: tuple[tuple[int, int], ...]
    """First atlas cell of each thing, and the one after its last."""


def _truth(prompts: tuple[WorldPrompt, ...], classes: int) -> NDArray[np.bool_]:
    truth = np.zeros((len(prompts), classes), np.bool_)
    for row, prompt in enumerate(prompts):
        truth[row, list(prompt.class_ids)] = True
    truth.flags.writeable = False
    return truth


@cache
def load_vocabulary() -> Vocabulary:
    """Read the vocabulary that ships with the package."""
    table = json.loads((ASSETS / "world.json").read_text(encoding="utf-8"))
    # Class k is prompt k: losses and truth rely on the main names being first.
    classes = [*table["things"], *table["stuffs"]]
    names = tuple(c["name"] for c in classes)
    prompts = [WorldPrompt(name, (k,)) for k, name in enumerate(names)]
    prompts += [WorldPrompt(s, (k,)) for k, c in enumerate(classes) for s in c["synonyms"]]
    for kind, members in table["kinds"].items():
        prompts.append(WorldPrompt(kind, tuple(sorted(names.index(m) for m in members))))
    return Vocabulary(
        names=names,
        synonyms=tuple(tuple(c["synonyms"]) for c in classes),
        things=len(table["things"]),
        prompts=tuple(prompts),
        truth=_truth(tuple(prompts), len(names)),
        cells=tuple((t["cells"][0], t["cells"][1]) for t in table["things"]),
    )
