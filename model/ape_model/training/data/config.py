"""One data set of a run: where it is, how often it is drawn, what its prompts are."""

from __future__ import annotations

from dataclasses import dataclass

from ape_model.training.ranges import (
    check_above_0,
    check_at_least,
    check_one_of,
    check_rising,
    check_share,
)

__all__ = ["KINDS", "WORLD", "DataConfig"]

WORLD = "world"
"""The source that is drawn, not read from files."""
KINDS = ("vocabulary", "phrase", "expression")
"""Kinds of prompts (APE, sections 3.2 and 4.1)."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """A `[[data]]` table of a recipe."""

    source: str = WORLD
    """`world`, or a data set (COCO, Pascal VOC, YOLO), its path relative to the recipe; empty: that
    of `--data`."""
    images: str = ""
    """Folder of the images, relative to the recipe; empty: the COCO file's own folder."""
    ratio: float = 1.0
    """How often a step draws from it, over the sum of all ratios."""
    prompts: str = "vocabulary"
    """`vocabulary`: all names, not fused. `phrase`: descriptions of regions, the same for all
    images of a batch, fused. `expression`: each image has its own, each of one region, fused."""
    federated: int = 0
    """Number of classes in the prompts of a step, for data that are not labelled exhaustively
    (federated loss, Zhou et al. 2021); 0: all."""
    memory: int = 0
    """Number of earlier phrases that are kept as negatives (APE's embedding bank); 0: none."""
    scale: tuple[float, float] = (0.5, 1.4)
    """Range of the image's size over the size that fits the canvas (large-scale jitter)."""
    copy_paste: float = 0.5
    """Probability that things of another image are pasted on an image; vocabulary only."""
    photometric: float = 0.5
    """Probability that brightness, colours and sharpness of an image are changed."""
    held_back: float = 0.0
    """Part of its images, 0..1, that is not learnt from and that the score is taken on; 0: the
    score is taken on images that are learnt."""
    validation: str = ""
    """Data set whose images the score is taken on instead, its path relative to the recipe."""
    semantic: float = 0.0
    """Weight of the semantic map's loss, for data that label nearly every pixel; 0: none."""
    stuff_in_parts: bool = True
    """Each connected part of a stuff is a region; false: all parts together are one."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a field is out of range or does not go with the others.
        """
        check_one_of(self, "prompts", KINDS)
        check_above_0(self, "ratio")
        check_rising(self, "scale")
        check_share(self, "copy_paste", "photometric")
        check_share(self, "held_back", below_1=True)
        check_at_least(self, 0, "federated", "memory", "semantic")
        self._check_partners()

    def _check_partners(self) -> None:
        """Refuse options that do not go with the others."""
        # Each of these options changes only one kind of step: with another it would do nothing.
        if self.federated and (self.uses_phrases or self.source == WORLD):
            raise ValueError("federated is for the vocabulary of COCO data")
        if self.semantic and (self.uses_phrases or self.federated or self.source == WORLD):
            raise ValueError("semantic is for COCO data with the whole vocabulary as prompts")
        if self.memory and not (self.uses_phrases or self.source == WORLD):
            raise ValueError("memory is for phrases and expressions")
        if self.source == WORLD and self.uses_phrases:
            raise ValueError("phrases of the world are set by sentence_share; leave prompts out")
        if (self.held_back or self.validation) and self.source == WORLD:
            raise ValueError("held_back and validation are for images: the world draws new ones")

    @property
    def uses_phrases(self) -> bool:
        """Whether its prompts are phrases or expressions, not names."""
        return self.prompts != "vocabulary"
