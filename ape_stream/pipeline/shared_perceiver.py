"""One model for several users in a process, such as pipelines, each with its own prompts."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

from ape_stream.errors import ConfigError, ModelError
from ape_stream.protocols import PaintsMaps, ReportsMemory, ReportsThreshold
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ape_stream.protocols import Perceiver
    from ape_stream.stats import DeviceMemory
    from ape_stream.types import Instances, MapKind, Maps, PromptSet

__all__ = ["WARM_UP", "SharedPerceiver"]

WARM_UP: Final = "warm-up"
"""Stream of the blank frame that a model is given before its first image."""
_WARM_UP_SHAPE: Final = (480, 640, 3)
"""Height, width and channels of that frame."""


class SharedPerceiver:
    """One perceiver for several users; the last one that releases it frees it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._perceiver: Perceiver | None = None
        self._users = 0
        self._prepared: PromptSet | None = None

    @property
    def loaded(self) -> Perceiver | None:
        """The perceiver, or None while nobody uses it."""
        return self._perceiver

    @property
    def prompts(self) -> PromptSet | None:
        """What it was prepared for last."""
        return self._prepared

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
        with self.prepared(prompts) as perceiver:
            perceiver.perceive([blank])

    def handle(self) -> Perceiver:
        """A perceiver for one pipeline; it makes maps unless the loaded model makes none."""
        makes_maps = self._perceiver is None or isinstance(self._perceiver, PaintsMaps)
        return _MapsHandle(self) if makes_maps else _Handle(self)

    @contextmanager
    def prepared(self, prompts: PromptSet) -> Iterator[Perceiver]:
        """The model with these prompts, for nobody else meanwhile; known texts cost nothing.

        Raises:
            ModelError: it is not loaded.
        """
        with self._lock:
            if self._perceiver is None:
                raise ModelError("the model was freed while a pipeline still used it")
            # Users alternate: the model encodes a text once, and switching sets is cheap.
            if prompts != self._prepared:
                self._prepared = None  # if the model refuses these, the next user prepares again
                self._perceiver.prepare(prompts)
                self._prepared = prompts
            yield self._perceiver

    def device_memory(self) -> DeviceMemory | None:
        """Memory of the model's device; without the lock, which may be held for a whole frame."""
        perceiver = self._perceiver
        return perceiver.device_memory() if isinstance(perceiver, ReportsMemory) else None


class _Handle:
    """A shared perceiver with the prompts of one pipeline."""

    def __init__(self, shared: SharedPerceiver) -> None:
        self._shared = shared
        self._prompts: PromptSet | None = None

    def prepare(self, prompts: PromptSet) -> None:
        with self._shared.prepared(prompts):
            self._prompts = prompts

    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        with self._shared.prepared(self._own_prompts()) as perceiver:
            return perceiver.perceive(frames)

    def device_memory(self) -> DeviceMemory | None:
        return self._shared.device_memory()

    def _own_prompts(self) -> PromptSet:
        if self._prompts is None:
            raise ModelError("perceive was called before prepare")
        return self._prompts


class _MapsHandle(_Handle):
    """The same of a model that makes maps."""

    def perceive_with_maps(
        self, frames: Sequence[Frame], wanted: frozenset[MapKind]
    ) -> list[tuple[Instances, Maps]]:
        with self._shared.prepared(self._own_prompts()) as perceiver:
            if not isinstance(perceiver, PaintsMaps):  # loaded after this handle was made
                raise ConfigError(f"the model makes no {' or '.join(sorted(wanted))} maps")
            return perceiver.perceive_with_maps(frames, wanted)
