"""One model for several pipelines of a process, each with its own prompts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ape_stream.errors import ModelError
from ape_stream.protocols import ReportsMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ape_stream.protocols import Perceiver
    from ape_stream.stats import DeviceMemory
    from ape_stream.types import Frame, Instances, PromptSet

__all__ = ["SharedModel"]


class SharedModel:
    """One perceiver for several pipelines, each with its own prompts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._perceiver: Perceiver | None = None
        self._users = 0
        self._prepared: PromptSet | None = None

    def load(self, make: Callable[[], Perceiver]) -> None:
        """Make the perceiver for the first user; later ones share it."""
        with self._lock:
            if self._perceiver is None:
                self._perceiver = make()
            self._users += 1

    def release(self) -> None:
        """One user less; the last one frees the model."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users == 0:
                self._perceiver = self._prepared = None

    def view(self) -> Perceiver:
        """A perceiver for one pipeline."""
        return _View(self)

    def prepare(self, prompts: PromptSet) -> None:
        """Make these the prompts of the next call; known texts cost nothing."""
        with self._lock:
            self._loaded(prompts)

    def perceive(self, prompts: PromptSet, frames: Sequence[Frame]) -> list[Instances]:
        """Find these prompts in the frames."""
        with self._lock:
            return self._loaded(prompts).perceive(frames)

    def device_memory(self) -> DeviceMemory | None:
        """Memory of the model's device; asks without the lock, which a whole frame may hold."""
        teller = self._perceiver
        return teller.device_memory() if isinstance(teller, ReportsMemory) else None

    def _loaded(self, prompts: PromptSet) -> Perceiver:
        if self._perceiver is None:
            raise ModelError("the model was freed while a pipeline still used it")
        if prompts != self._prepared:
            self._prepared = None  # should the model refuse, the next user prepares again
            self._perceiver.prepare(prompts)
            self._prepared = prompts
        return self._perceiver


class _View:
    """One pipeline's way to a shared model."""

    def __init__(self, model: SharedModel) -> None:
        self._model = model
        self._prompts: PromptSet | None = None

    def prepare(self, prompts: PromptSet) -> None:
        self._model.prepare(prompts)
        self._prompts = prompts

    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        if self._prompts is None:
            raise ModelError("perceive came before prepare")
        return self._model.perceive(self._prompts, frames)

    def device_memory(self) -> DeviceMemory | None:
        return self._model.device_memory()
