"""Fakes of all four parts of a pipeline, for our tests and for those of users."""

from __future__ import annotations

import time
from collections.abc import Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from ape_stream.closing import Closing
from ape_stream.types import Frame, Instances, Mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ape_stream.types import FrameResult, PromptSet

__all__ = [
    "CollectSink",
    "ListSource",
    "OraclePerceiver",
    "SeenFrame",
    "frames",
    "one_box_per_prompt",
]


def frames(
    count: int, *, stream: str = "0", size: tuple[int, int] = (24, 32), fps: float = 30.0
) -> Iterator[Frame]:
    """Plain grey frames.

    Args:
        count: How many.
        stream: The stream's name.
        size: Height and width in pixels.
        fps: Frames per second on the stream's clock.

    Yields:
        Frame `k` at `k / fps` seconds, every pixel `k % 256`.
    """
    for index in range(count):
        image = np.full((*size, 3), index % 256, np.uint8)
        yield Frame(image, index, index / fps, stream)


class _Resource(Closing):
    """Counts how often it was opened and closed."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0
        self.seen_error: BaseException | None = None
        """The error that it was closed with."""

    def __enter__(self) -> Self:
        self.opened += 1
        return self

    def close(self, error: BaseException | None = None) -> None:
        """Count, and keep the error."""
        self.closed += 1
        self.seen_error = error


class ListSource(_Resource):
    """A source of ready frames.

    Args:
        given: The frames; may be endless.
        name: The stream's name.
        live: Whether frames may be dropped.
        period_s: Seconds to wait before each frame.
        error: Raised after the last frame.
    """

    def __init__(
        self,
        given: Iterable[Frame],
        *,
        name: str = "0",
        live: bool = False,
        period_s: float = 0.0,
        error: Exception | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.live = live
        self.delivered = 0
        """Frames handed to the pipeline so far."""
        self._given = given
        self._period_s = period_s
        self._error = error

    @property
    def frame_count(self) -> int | None:
        """Length of what was given, or None where it has none."""
        return len(self._given) if isinstance(self._given, Sized) else None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, then raise the error if there is one."""
        for frame in self._given:
            if self._period_s:
                time.sleep(self._period_s)
            self.delivered += 1
            yield frame
        if self._error is not None:
            raise self._error


def one_box_per_prompt(frame: Frame, prompts: PromptSet) -> Instances:
    """One region per prompt: a 4x4 square at column 5k, moving down a row per frame.

    Squares that would leave the frame are left out.
    """
    height, width = frame.size
    # Down a row with each frame, and back to the top: predictable for a tracker and for a reader.
    row = frame.index % max(1, height - 4)
    corners = [(5 * k, row) for k in range(len(prompts)) if 5 * k + 4 <= width]
    boxes = [(x, y, x + 4, y + 4) for x, y in corners]
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.full(len(corners), 0.9, np.float32),
        prompt_ids=np.arange(len(corners), dtype=np.int64),
        masks=tuple(Mask(np.ones((4, 4), np.bool_), x, y) for x, y in corners),
        size=frame.size,
    )


@dataclass(frozen=True, slots=True)
class SeenFrame:
    """What `OraclePerceiver` keeps of a frame."""

    stream: str
    """Name of its stream."""
    index: int
    """Its number in the stream."""
    size: tuple[int, int]
    """Height and width, pixels."""


class OraclePerceiver:
    """Returns ready answers, and records what it was called with.

    Args:
        answer: What is in a frame for these prompts.
        delay_s: Seconds per call.
    """

    def __init__(
        self,
        answer: Callable[[Frame, PromptSet], Instances] = one_box_per_prompt,
        *,
        delay_s: float = 0.0,
    ) -> None:
        self.encoded: list[str] = []
        """Every text in the order of its first use: none is encoded twice."""
        self.batches: list[tuple[SeenFrame, ...]] = []
        """Which frames every call had; not their pixels, which would fill the memory."""
        self._answer = answer
        self._delay_s = delay_s
        self._prompts: PromptSet | None = None

    def prepare(self, prompts: PromptSet) -> None:
        """Take the prompts; only new texts are encoded."""
        known = set(self.encoded)
        # As a real model with a cache of embeddings does.
        self.encoded += [text for text in prompts.texts if text not in known]
        self._prompts = prompts

    def perceive(self, frames: Sequence[Frame]) -> list[Instances]:
        """The answers for these frames.

        Raises:
            RuntimeError: `prepare` was not called before.
        """
        if self._prompts is None:
            raise RuntimeError("perceive before prepare")
        self.batches.append(tuple(SeenFrame(f.stream, f.index, f.size) for f in frames))
        if self._delay_s:
            time.sleep(self._delay_s)
        return [self._answer(frame, self._prompts) for frame in frames]


class CollectSink(_Resource):
    """Keeps every result.

    Args:
        delay_s: Seconds per result.
        error: Raised instead of taking the result numbered `error_at`.
        error_at: Counted from 0.
        name: Name in messages.
    """

    def __init__(
        self,
        *,
        delay_s: float = 0.0,
        error: Exception | None = None,
        error_at: int = 0,
        name: str = "collect",
    ) -> None:
        super().__init__()
        self.name = name
        self.results: list[FrameResult] = []
        self._delay_s = delay_s
        self._error = error
        self._error_at = error_at

    def write(self, result: FrameResult) -> None:
        """Take a result."""
        if self._error is not None and len(self.results) == self._error_at:
            raise self._error
        if self._delay_s:
            time.sleep(self._delay_s)
        self.results.append(result)
