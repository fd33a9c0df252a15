"""Synthetic worlds: images, sentences and videos with their exact truth.

A world is a plugin of the group `ape_stream.worlds`. Nothing of ours is inherited: any object of
this shape will do. The `synthetic://` source plays its videos, `ape-stream eval` judges models by
its images and videos.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AnnotatedImage",
    "CaptionedImage",
    "ClassPrompt",
    "Phrase",
    "Region",
    "Video",
    "World",
]


class Region(Protocol):
    """One visible thing, or one region of stuff."""

    @property
    def id(self) -> int:
        """Its value in the image's instance map; the same throughout a video."""
        ...

    @property
    def class_id(self) -> int:
        """Position in `World.names`."""
        ...

    @property
    def stuff(self) -> bool:
        """True for an amorphous region."""
        ...


class AnnotatedImage(Protocol):
    """An image with its exact truth."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, blue-green-red."""
        ...

    @property
    def instance_map(self) -> NDArray[np.int32]:
        """(H, W) int32: id of what is visible at each pixel."""
        ...

    @property
    def instances(self) -> Sequence[Region]:
        """Everything that must be found."""
        ...

    @property
    def ignored(self) -> Sequence[Region]:
        """What may be found or not: too little of it is visible."""
        ...


class Phrase(Protocol):
    """A description that fits one region of its image and no other."""

    @property
    def text(self) -> str:
        """The sentence."""
        ...

    @property
    def target(self) -> int:
        """Id of the region that it describes."""
        ...

    @property
    def distractors(self) -> Sequence[int]:
        """Ids of other regions with the same noun, which it does not describe."""
        ...

    @property
    def relation(self) -> str:
        """Which kind of description it is."""
        ...


class CaptionedImage(Protocol):
    """An image and sentences that describe regions of it."""

    @property
    def scene(self) -> AnnotatedImage:
        """The image."""
        ...

    @property
    def phrases(self) -> Sequence[Phrase]:
        """At least one description."""
        ...


class Video(Protocol):
    """An endless video."""

    def scene(self, index: int) -> AnnotatedImage:
        """The frame at this index, >= 0, always the same."""
        ...


class ClassPrompt(Protocol):
    """A prompt and the classes that it is true of."""

    @property
    def text(self) -> str:
        """The prompt."""
        ...

    @property
    def class_ids(self) -> Sequence[int]:
        """The classes; at least one."""
        ...


class World(Protocol):
    """Renders images and videos; the same seed gives the same pixels.

    Methods raise ValueError for sizes or names that cannot be rendered.
    """

    @property
    def names(self) -> Sequence[str]:
        """Main name of every class: things first, then stuffs."""
        ...

    @property
    def things(self) -> int:
        """How many of the names are things."""
        ...

    @property
    def prompts(self) -> Sequence[ClassPrompt]:
        """Every prompt of the world, main names first."""
        ...

    def scene(self, seed: int, size: tuple[int, int]) -> AnnotatedImage:
        """An image of this (height, width)."""
        ...

    def sentence_scene(self, seed: int, size: tuple[int, int]) -> CaptionedImage:
        """An image with several of one noun, and sentences that distinguish them."""
        ...

    def video(
        self,
        seed: int,
        size: tuple[int, int],
        *,
        fps: float,
        cast: tuple[str, ...] = (),
        full_occlusion: bool = False,
    ) -> Video:
        """A video; of the things in `cast` only, where any are named."""
        ...
