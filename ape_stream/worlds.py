"""What a synthetic world looks like from here: pictures, sentences and videos with their truth.

A world is a plugin of the group `ape_stream.worlds`. Nothing of ours is inherited: any object of
this shape will do. The `synthetic://` source shows its videos, `ape-stream eval` judges by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Named", "Phrase", "Picture", "Region", "Spoken", "Video", "World"]


class Region(Protocol):
    """One thing, or one region of stuff, that shows in a picture."""

    @property
    def id(self) -> int:
        """Its value in the picture's instance map; lasting within a video."""
        ...

    @property
    def class_id(self) -> int:
        """Position in `World.names`."""
        ...

    @property
    def stuff(self) -> bool:
        """True for an amorphous region."""
        ...


class Picture(Protocol):
    """A picture with its exact truth."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, blue-green-red."""
        ...

    @property
    def instance_map(self) -> NDArray[np.int32]:
        """(H, W) int32: id of what shows at each pixel."""
        ...

    @property
    def instances(self) -> Sequence[Region]:
        """Everything that must be found."""
        ...

    @property
    def ignored(self) -> Sequence[Region]:
        """What may be found or not: it shows too little."""
        ...


class Phrase(Protocol):
    """A description that fits one region of its picture and no other."""

    @property
    def text(self) -> str:
        """The sentence."""
        ...

    @property
    def target(self) -> int:
        """Id of the one right region."""
        ...

    @property
    def distractors(self) -> Sequence[int]:
        """Ids of the wrong regions of the same noun."""
        ...

    @property
    def relation(self) -> str:
        """Which kind of description it is."""
        ...


class Spoken(Protocol):
    """A picture and what can be said of it."""

    @property
    def scene(self) -> Picture:
        """The picture."""
        ...

    @property
    def phrases(self) -> Sequence[Phrase]:
        """At least one description."""
        ...


class Video(Protocol):
    """An endless video."""

    def scene(self, index: int) -> Picture:
        """The frame at this index, >= 0, always the same."""
        ...


class Named(Protocol):
    """Words and the classes that they are true of."""

    @property
    def text(self) -> str:
        """The words."""
        ...

    @property
    def class_ids(self) -> Sequence[int]:
        """The classes; at least one."""
        ...


class World(Protocol):
    """Renders pictures and videos; the same seed gives the same pixels. Raises ValueError."""

    @property
    def names(self) -> Sequence[str]:
        """Main name of every class: things first, then stuffs."""
        ...

    @property
    def things(self) -> int:
        """How many of the names are things."""
        ...

    @property
    def prompts(self) -> Sequence[Named]:
        """Every prompt of the world, main names first."""
        ...

    def scene(self, seed: int, size: tuple[int, int]) -> Picture:
        """A picture of this (height, width)."""
        ...

    def sentence_scene(self, seed: int, size: tuple[int, int]) -> Spoken:
        """A picture with several of one noun, and sentences that tell them apart."""
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
        """A video, of the things in `cast` alone where any are named."""
        ...
