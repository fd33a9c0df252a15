"""One data set of a run: where it is, how often it is drawn, how it is spoken of."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "WORLD", "DataConfig"]

WORLD = "world"
"""The source that is drawn and not read."""
KINDS = ("vocabulary", "phrase", "expression")
"""Kinds of prompts (APE, sections 3.2 and 4.1)."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """A `[[data]]` table of a recipe."""

    source: str = WORLD
    """`world`, or a COCO file beside the recipe."""
    pictures: str = ""
    """Folder of the pictures, beside the recipe; empty: that of the COCO file."""
    ratio: float = 1.0
    """How often a step draws from it, over the sum of all ratios."""
    prompts: str = "vocabulary"
    """`vocabulary`: all names, not fused. `phrase`: descriptions of regions, shared by the batch
    and fused. `expression`: each picture's own descriptions, each of one region, fused."""
    federated: int = 0
    """Classes that a step asks for, where a picture is not labelled with all of them; 0: all."""
    memory: int = 0
    """Earlier descriptions that are kept as negatives (the embedding bank); 0: none."""
    scale: tuple[float, float] = (0.5, 1.4)
    """Least and largest size of a picture over the one that fits (large-scale jitter)."""
    copy_paste: float = 0.5
    """Share of pictures that get things of another one pasted on, 0..1; vocabularies only."""
    photometric: float = 0.5
    """Share of pictures whose light, colours and sharpness change, 0..1."""
    semantic: float = 0.0
    """Weight of the loss of the semantic map; for data that label nearly every pixel. 0: none."""
    stuff_in_parts: bool = True
    """Each connected part of a stuff is a region of its own; false: all of them are one."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range or does not go with the others.
        """
        if self.prompts not in KINDS:
            raise ValueError(f"prompts is one of {', '.join(KINDS)}, not {self.prompts!r}")
        if not self.ratio > 0:
            raise ValueError(f"ratio is over 0, not {self.ratio}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is the least and the largest, over 0, not {self.scale}")
        if not (0 <= self.copy_paste <= 1 and 0 <= self.photometric <= 1):
            raise ValueError("copy_paste and photometric are 0..1")
        if min(self.federated, self.memory, self.semantic) < 0:
            raise ValueError("federated, memory and semantic are 0 or more")
        if self.federated and (self.spoken or self.source == WORLD):
            raise ValueError("federated is for the vocabulary of COCO data")
        if self.semantic and (self.spoken or self.federated or self.source == WORLD):
            raise ValueError("semantic is for COCO data whose names are all asked for")
        if self.memory and not (self.spoken or self.source == WORLD):
            raise ValueError("memory is for phrases and expressions")
        if self.source == WORLD and self.spoken:
            raise ValueError("the world speaks by its stages' sentence_share; leave prompts out")

    @property
    def spoken(self) -> bool:
        """Whether its pictures are asked for by descriptions and not by names."""
        return self.prompts != "vocabulary"
