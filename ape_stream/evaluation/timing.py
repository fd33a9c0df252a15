"""A perceiver that is timed, stage by stage."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ape_stream.protocols import Perceiver
    from ape_stream.protocols.worlds import AnnotatedImage
    from ape_stream.types import Instances, PromptSet

__all__ = ["TimedPerceiver"]


@dataclass(slots=True)
class TimedPerceiver:
    """Calls a perceiver and adds up the time of every stage."""

    perceiver: Perceiver
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time the block as one call of this stage."""
        start = time.perf_counter()
        # No `finally`: a call that failed says nothing about the time of one.
        yield
        self.seconds[stage] += time.perf_counter() - start
        self.calls[stage] += 1

    def prepare(self, prompts: PromptSet) -> None:
        """Take these prompts."""
        with self.timed("prepare"):
            self.perceiver.prepare(prompts)

    def perceive(self, images: Sequence[AnnotatedImage]) -> list[Instances]:
        """Find the prompts in each image, all in one call."""
        frames = [Frame(one.image, k, 0.0, str(k)) for k, one in enumerate(images)]
        with self.timed("perceive"):
            return self.perceiver.perceive(frames)

    def milliseconds(self) -> dict[str, float]:
        """Mean milliseconds of one call, by stage."""
        return {s: round(1e3 * self.seconds[s] / self.calls[s], 2) for s in sorted(self.calls)}
