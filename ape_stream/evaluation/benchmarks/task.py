"""One benchmark as data: where its files lie, what is asked for, how it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

__all__ = ["Mode", "Profile", "Task"]

Mode = Literal["name", "phrase", "expression"]
"""What a prompt is: the name of a class, a phrase with any number of regions, or an expression. The
last two are fused with the image (APE, section 3.2)."""
Profile = Literal["official", "honest"]
"""`official` does what the released evaluation does, with all that was chosen by hand for single
data sets; `honest` treats all data sets alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One benchmark."""

    name: str
    """Its name: group and data set, such as "odinw/Aquarium"."""
    groups: tuple[str, ...]
    """Groups that it is a member of."""
    reader: str
    """Which of `benchmarks.readers` reads its files."""
    scorer: str
    """Which of `benchmarks.scoring` judges it."""
    paths: Mapping[str, str]
    """Files and folders below the root, by what they hold."""
    get: str = ""
    """Where they can be downloaded."""
    classes: str | None = None
    """Name of a list of classes in `data/classes`; None where the annotations name them."""
    mode: Mode = "name"
    """What a prompt is."""
    fused: bool = False
    """Whether names are fused with the image like sentences."""
    template: str = "{}"
    """What is asked for a class: its name is put in the place of {}, or in capitals of {upper}."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """What is asked for instead of some names."""
    top_k: int = 300
    """Most regions of an image, over all prompts."""
    detections: int = 100
    """Most regions that count: of a class in an image, or of an image (LVIS)."""
    kinds: tuple[Literal["box", "mask"], ...] = ("box",)
    """What average precision is taken of."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What only its reader or its scorer knows."""
    predictions: str | None = None
    """Name under which its predictions are kept, where tasks share them; None for its own name."""
    official: Mapping[str, Any] = field(default_factory=dict)
    """Fields that have other values in the official profile."""

    @property
    def predicted_as(self) -> str:
        """Name under which its predictions are kept."""
        return self.predictions or self.name

    def prompt(self, name: str) -> str:
        """What is asked for a class of this name."""
        if name in self.renamed:
            return self.renamed[name]
        return self.template.replace("{upper}", name.upper()).replace("{}", name)

    def with_profile(self, profile: Profile) -> Task:
        """The task as this profile has it; tables are merged."""
        if profile == "honest":
            return self
        known = {one.name for one in fields(self)}
        if unknown := self.official.keys() - known:
            raise ValueError(f"{self.name}: the official profile sets unknown {sorted(unknown)}")
        changed: dict[str, Any] = {
            key: {**getattr(self, key), **value} if isinstance(value, Mapping) else value
            for key, value in self.official.items()
        }
        return replace(self, **changed)
