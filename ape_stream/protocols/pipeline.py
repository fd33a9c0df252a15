"""The four kinds of parts of a pipeline (Source, Perceiver, Tracker, Sink), and their options.

A part is any object of this shape; nothing of ours needs to be inherited. Sources and sinks are
context managers: entering opens the device or file, so what cannot work fails before any thread
starts; leaving closes it, on success and on failure alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from fractions import Fraction
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from ape_stream.stats import DeviceMemory, RunStats
    from ape_stream.types import Frame, FrameResult, Instances, MapKind, Maps, PromptSet

__all__ = [
    "ChecksItself",
    "ControlsRun",
    "EmbedsTexts",
    "EndsRun",
    "KnowsFrameCount",
    "KnowsRate",
    "KnowsWeights",
    "NeedsMaps",
    "PaintsMaps",
    "Perceiver",
    "RanksRegions",
    "ReadsFiles",
    "ReportsMemory",
    "ReportsThreshold",
    "RunControl",
    "SeesFrames",
    "Sink",
    "SkipsFrames",
    "Source",
    "Tracker",
    "WatchesRun",
    "WritesFiles",
]


class _Resource(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


@runtime_checkable
class Source(_Resource, Protocol):
    """Delivers the frames of one stream in order.

    A pipeline that is stopped while `__iter__` waits for a frame leaves the source
    (`__exit__`) from another thread: the iterator must then end within 1 s. So leaving only
    signals while an iteration runs, and the iteration itself releases the device.
    """

    name: str
    """The stream's name, written into every frame."""
    live: bool
    """True where time does not wait (camera, network): old frames may be dropped. Read by the
    pipeline once the source is entered."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame once; no wait inside lasts over 1 s without a way to stop.

        Raises:
            SourceError: the stream cannot be read on.
            TruncatedError: the stream broke off early; all that decodes was yielded before.
        """
        ...


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
class NeedsMaps(Protocol):
    """A sink that takes maps of every pixel, or whose readers do."""

    @property
    def maps(self) -> frozenset[MapKind]:
        """What it needs of the next frames; read before each call of the model, from any thread."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Gives the regions of one stream lasting identities."""

    def update(self, found: Instances, time_s: float) -> Instances:
        """Return the regions with track ids; edits nothing.

        Args:
            found: What was found in the stream's next frame. Its prompt ids are class ids here:
                one number for a prompt's text and kind for as long as it stays among the prompts,
                wherever it stands in the set. A prompt that comes back has a new one.
            time_s: The frame's time in seconds, finite and never less than the last one's: where a
                stream's clock steps back, a new tracker is made.
        """
        ...


@runtime_checkable
class Sink(_Resource, Protocol):
    """Takes results out of the pipeline. May block: a live run then drops before the model."""

    def write(self, result: FrameResult) -> None:
        """Write one result; what was written before survives a later failure.

        Raises:
            SinkError: the output cannot be written.
        """
        ...


@runtime_checkable
class KnowsFrameCount(Protocol):
    """A source that may know how many frames it will deliver."""

    @property
    def frame_count(self) -> int | None:
        """How many frames there will be, or None where this cannot be known."""
        ...


@runtime_checkable
class KnowsRate(Protocol):
    """A source that may know its frame rate."""

    @property
    def rate(self) -> Fraction | None:
        """Frames per second, as stated and not as measured; None where nothing is stated."""
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


@runtime_checkable
class SkipsFrames(Protocol):
    """A source that can leave frames out before it makes images of them, which takes time."""

    def keep(self, wanted: Callable[[int, float], bool]) -> None:
        """Take what says, for each frame in order, by index and time_s, whether it is yielded.

        Called once, before the source is iterated.
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


@runtime_checkable
class ControlsRun(Protocol):
    """A sink through which a user changes the run, as by a page."""

    def control(self, run: RunControl) -> None:
        """Take the run; called once, before the sink is entered."""
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
class ChecksItself(Protocol):
    """A source or sink that reports before a model loads that it could not be used."""

    def check(self) -> None:
        """Find out what needs nothing to be kept open; called before it is entered.

        Raises:
            SourceError: the source could not be opened.
            SinkError: the output could not be written.
        """
        ...


@runtime_checkable
class ReadsFiles(Protocol):
    """A source that reads files: no output may replace one of them."""

    def files(self) -> Iterable[Path]:
        """The files it reads; called before it is entered."""
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
