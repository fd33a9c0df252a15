"""A sink, what it may also ask for and say, and what it may do with the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ape_stream.protocols.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ape_stream.stats import RunStats
    from ape_stream.types import Frame, FrameResult, MapKind, PromptSet

__all__ = [
    "ControlsRun",
    "EndsRun",
    "NeedsMaps",
    "RunControl",
    "SeesFrames",
    "Sink",
    "WatchesRun",
    "WritesFiles",
]


@runtime_checkable
class Sink(Resource, Protocol):
    """Takes results out of the pipeline. May block: a live run then drops before the model."""

    def write(self, result: FrameResult) -> None:
        """Write one result; what was written before survives a later failure.

        Raises:
            SinkError: the output cannot be written.
        """
        ...


@runtime_checkable
class WritesFiles(Protocol):
    """A sink that writes files: it says which, before anything is opened."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file it will make or replace, temporary ones too."""
        ...

    def claim(self, streams: Sequence[str]) -> None:
        """Refuse a run that cannot be written, or that would destroy what is there.

        Args:
            streams: Names of the streams whose results will come.

        Raises:
            ConfigError: a file exists already, or cannot hold so many streams.
            SinkError: a file cannot be written.
        """
        ...


@runtime_checkable
class NeedsMaps(Protocol):
    """A sink that takes maps of every pixel, or whose readers do."""

    @property
    def maps(self) -> frozenset[MapKind]:
        """What it needs of the next frames; read before each call of the model, from any thread."""
        ...


@runtime_checkable
class SeesFrames(Protocol):
    """A sink that also shows frames which no result has yet, or ever will."""

    def see(self, frame: Frame) -> None:
        """Take a frame as it comes from its source.

        Called in the source's thread, once the frame is on its way to the model: it must not wait.
        """
        ...


@runtime_checkable
class WatchesRun(Protocol):
    """A sink that also reports how the run goes."""

    def watch(self, stats: Callable[[], RunStats]) -> None:
        """Take a callable that returns the run's statistics; called once, before entering."""
        ...


@runtime_checkable
class EndsRun(Protocol):
    """A sink whose user can end the run, as by closing a window."""

    def on_end(self, stop: Callable[[], None]) -> None:
        """Take the callable that stops the run; called once, before the sink is entered."""
        ...


@runtime_checkable
class ControlsRun(Protocol):
    """A sink through which a user changes the run, as by a page."""

    def control(self, run: RunControl) -> None:
        """Take the run; called once, before the sink is entered."""
        ...


class RunControl(Protocol):
    """What a sink may ask of the run, from any thread; a `Pipeline` is one."""

    @property
    def prompts(self) -> PromptSet:
        """The prompts of the next frame, with thresholds filled in."""
        ...

    @property
    def live_streams(self) -> list[str]:
        """Names of the streams whose time does not wait."""
        ...

    @property
    def paints_maps(self) -> bool:
        """Whether the model can make maps of every pixel; see `PaintsMaps`."""
        ...

    def set_prompts(self, prompts: PromptSet, timeout_s: float | None = None) -> PromptSet:
        """Look for something else from the next frame on; all or nothing."""
        ...

    def stats(self) -> RunStats:
        """What the run did so far."""
        ...

    def stop(self) -> None:
        """End the run."""
        ...
