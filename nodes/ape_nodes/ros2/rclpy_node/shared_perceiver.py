"""One model for several pipelines of a process, each with its own prompts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import numpy as np

from ape_stream.errors import ConfigError, ModelError
from ape_stream.protocols import PaintsMaps, ReportsMemory, ReportsThreshold
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ape_stream.protocols import Perceiver
    from ape_stream.stats import DeviceMemory
    from ape_stream.types import Instances, MapKind, Maps, PromptSet

__all__ = ["WARM_UP", "SharedPerceiver"]

WARM_UP: Final = "warm-up"
"""Stream of the blank frame that a model is given before its first image."""
_WARM_UP_SHAPE: Final = (480, 640, 3)


class SharedPerceiver:
    """One perceiver for several pipelines; the last user that releases it frees it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._perceiver: Perceiver | None = None
        self._users = 0
        self._prepared: PromptSet | None = None

    @property
    def loaded(self) -> Perceiver | None:
        """The perceiver, or None while nobody uses it."""
        return self._perceiver

    def load(self, make: Callable[[], Perceiver]) -> None:
        """Make the perceiver for the first user; later users share it."""
        with self._lock:
            if self._perceiver is None:
                self._perceiver = make()
            self._users += 1

    def release(self) -> None:
        """End one use; the last one frees the perceiver."""
        with self._lock:
            self._users = max(0, self._users - 1)
            # Nodes that never configured hold no use: they free nothing when they end.
            if self._users == 0:
                self._perceiver = self._prepared = None

    @property
    def threshold(self) -> float:
        """Lowest score that the model keeps by itself; 0 where it does not say."""
        perceiver = self._perceiver
        return perceiver.threshold if isinstance(perceiver, ReportsThreshold) else 0.0

    def warm_up(self, prompts: PromptSet) -> None:
        """Run the model once on a blank frame: the first call allocates, and may compile."""
        blank = Frame(np.zeros(_WARM_UP_SHAPE, np.uint8), 0, 0.0, WARM_UP)
        self.perceive(prompts, [blank])

    def handle(self) -> Perceiver:
        """A perceiver for one pipeline."""
        return _Handle(self)

    def prepare(self, prompts: PromptSet) -> None:
        """Make these the prompts of the next call; texts that are known cost nothing."""
        with self._lock:
            self._prepare(prompts)

    def perceive(self, prompts: PromptSet, frames: Sequence[Frame]) -> list[Instances]:
        """Find these prompts in the frames."""
        with self._lock:
            return self._prepare(prompts).perceive(frames)

    def perceive_with_maps(
        self, prompts: PromptSet, frames: Sequence[Frame], wanted: frozenset[MapKind]
    ) -> list[tuple[Instances, Maps]]:
        """Find these prompts in the frames, with maps of every pixel.

        Raises:
            ConfigError: the model makes none.
        """
        with self._lock:
            perceiver = self._prepare(prompts)
            if not isinstance(perceiver, PaintsMaps):
                name = type(perceiver).__name__
                raise ConfigError(f"{name} makes no {' or '.join(sorted(wanted))} maps")
            return perceiver.perceive_with_maps(frames, wanted)

    def device_memory(self) -> DeviceMemory | None:
        """Memory of the model's device; without the lock, which may be held for a whole frame."""
        perceiver = self._perceiver
        return perceiver.device_memory() if isinstance(perceiver, ReportsMemory) else None

    def _prepare(self, prompts: PromptSet) -> Perceiver:
        if self._perceiver is None:
            raise ModelError("the model was freed while a pipeline still used it")
        # Pipelines alternate: the model encodes a text once, and switching sets is cheap.
        if prompts != self._prepared:
            self._prepared = None  # if the model refuses these, the next user prepares again
            self._perceiver.prepare(prompts)
            self._prepared = prompts
        return self._perceiver


class _Handle:
    """A shared perceiver with the prompts of one pipeline."""

    def __init__(self, shared: SharedPerceiver) -> None:
        self._shared = shared
        self._prompts: PromptSet | None = None

    def prepare(self, prompts: PromptSet) -> None:
        self._shared.prepare(prompts)
        self._prompts = prompts

    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        if self._prompts is None:
            raise ModelError("perceive was called before prepare")
        return self._shared.perceive(self._prompts, frames)

    def perceive_with_maps(
        self, frames: Sequence[Frame], wanted: frozenset[MapKind]
    ) -> list[tuple[Instances, Maps]]:
        if self._prompts is None:
            raise ModelError("perceive was called before prepare")
        return self._shared.perceive_with_maps(self._prompts, frames, wanted)

    def device_memory(self) -> DeviceMemory | None:
        return self._shared.device_memory()
