"""A perceiver, what it may also offer, and what the factory of one may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ape_stream.stats import DeviceMemory
    from ape_stream.types import Frame, Instances, MapKind, Maps, PromptSet

__all__ = [
    "EmbedsTexts",
    "KnowsWeights",
    "PaintsMaps",
    "Perceiver",
    "RanksRegions",
    "ReportsMemory",
    "ReportsThreshold",
]


@runtime_checkable
class Perceiver(Protocol):
    """Finds what the prompts name. Called from one thread only."""

    def prepare(self, prompts: PromptSet) -> None:
        """Take these prompts from the next frame on; only new ones are encoded.

        Raises:
            PromptError: a prompt cannot be used with this model.
        """
        ...

    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        """Find the prepared prompts in each frame; several streams make one call."""
        ...


@runtime_checkable
class PaintsMaps(Protocol):
    """A perceiver that can also give every pixel to a prompt, or to a segment."""

    def perceive_with_maps(
        self, frames: Sequence[Frame], wanted: frozenset[MapKind]
    ) -> list[tuple[Instances, Maps]]:
        """As `perceive`, with the wanted maps of each frame."""
        ...


@runtime_checkable
class RanksRegions(Protocol):
    """A perceiver that can also give the strongest regions of a frame, as benchmarks score them."""

    def rank(self, frames: Sequence[Frame], top_k: int) -> list[Instances]:
        """The `top_k` strongest regions of each frame over all prompts, strongest first.

        Boxes are the network's own, thresholds do not count, and regions of different prompts are
        never merged or dropped for one another.
        """
        ...


@runtime_checkable
class ReportsThreshold(Protocol):
    """A perceiver that says which scores it keeps by itself."""

    @property
    def threshold(self) -> float:
        """Lowest score kept for prompts without a threshold, 0..1."""
        ...


@runtime_checkable
class ReportsMemory(Protocol):
    """A perceiver that also knows the memory of its device."""

    def device_memory(self) -> DeviceMemory | None:
        """What its device holds now, or None on a CPU. Called from any thread; never waits."""
        ...


@runtime_checkable
class KnowsWeights(Protocol):
    """A factory of perceivers that names the files which its results depend on."""

    def weights(self, **options: Any) -> list[Path]:
        """The files that a perceiver made with these options would read.

        Raises:
            UsageError: they cannot be found.
        """
        ...


@runtime_checkable
class EmbedsTexts(Protocol):
    """A factory of perceivers that encodes texts without loading its network."""

    def embed_texts(
        self, texts: Sequence[str], *, model: str, dtype: str
    ) -> tuple[NDArray[np.float32], str]:
        """Encode texts.

        Args:
            texts: P of them.
            model: The model's name.
            dtype: Arithmetic of the text tower: "float32", "float16" or "bfloat16".

        Returns:
            (P, D) embeddings, and the SHA-256 (hex) of the text tower's weights.

        Raises:
            UsageError: the model or its text tower is not here, or cannot encode a text.
        """
        ...
