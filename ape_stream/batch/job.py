"""What is done with clips, and the messages between the run and its workers.

A job is made in every worker from its address ("package.module:factory") and options that are
plain JSON, so no code or object is sent between processes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ape_stream.batch.clips import Clip
from ape_stream.batch.selection import Selection
from ape_stream.errors import ApeStreamError, UsageError
from ape_stream.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ape_stream.types import Frame

__all__ = ["ClipResults", "Event", "Job", "Kind", "Setup", "Task", "make_job"]

Kind = Literal["identify", "probe", "find", "write"]
"""What a task asks for: what the results depend on, how long a clip is, its shards, its final
files."""


@dataclass(frozen=True, slots=True)
class ClipResults:
    """A clip whose shards are all there, for `Job.finish`."""

    clip: Clip
    """The clip."""
    payloads: Callable[[], Iterator[bytes]]
    """Gives what `describe` made of each frame, from the first on, at each call."""
    frames: Callable[[], Iterator[Frame]]
    """Gives the same frames again."""
    outputs: Path
    """The folder for its final files."""
    work: Path
    """The folder for what only later steps of the job read."""
    root: Path
    """The output folder of the whole job."""
    folder: Path | None
    """What the names of image files count from, on this machine; None where no source is a file."""
    end: Mapping[str, Any]
    """What was known at the end: `frames` (how many), `problem` (a text, or null)."""
    rate: Callable[[], tuple[int, int] | None]
    """Frames per second that the container states; known once a frame was read."""


class Job(Protocol):
    """What is done with every clip. Made once in each worker; called from one thread."""

    batch: int
    """Frames of one clip that `describe` is given at once."""

    def identity(self) -> dict[str, Any]:
        """What the results depend on and only a worker knows, such as digests of weights."""
        ...

    def load(self) -> None:
        """Load what `describe` needs, such as a model; called once, before it.

        Raises:
            UsageError: it cannot be used.
        """
        ...

    def describe(self, frames: Sequence[Frame]) -> list[bytes]:
        """What is found in each frame, as bytes: a function of the frames alone.

        Frames of one call are consecutive ones of one shard, and which ones does not depend on
        when or where the job runs.
        """
        ...

    def finish(
        self, results: ClipResults, progress: Callable[[int], None]
    ) -> tuple[dict[str, Any], list[Path]]:
        """Write the final files of a clip, in one sequential pass.

        Args:
            results: The clip, and what was found in it.
            progress: Called with the number of frames since its last call.

        Returns:
            What was found, for the summary, as JSON values; and the files.
        """
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is started with."""

    job: str
    """Address of the job's factory: "package.module:factory"."""
    options: dict[str, Any]
    """Its keyword arguments, as JSON values."""
    out: str
    """The output folder, absolute."""
    folder: str | None
    """The folder of the sources, absolute; None where none is a file."""
    selection: Selection
    """Which frames of each clip."""
    source: dict[str, Any]
    """Options of every source."""
    shard_frames: int
    """Frames of a shard."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Setup:
        """Undo `to_json`."""
        selection = read_table(Selection, given["selection"], "a selection")
        return cls(**{**given, "selection": selection})


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work."""

    number: int
    """Of the task, for its events; rises."""
    kind: Kind
    """What is to be done."""
    clip: Clip | None = None
    """With what; None for "identify"."""
    first: int = 0
    """Of "find": the first shard."""
    stop: int | None = None
    """Of "find": the shard after the last; None goes on to the clip's end."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Task:
        """Undo `to_json`."""
        clip = None if given["clip"] is None else Clip(**given["clip"])
        return cls(**{**given, "clip": clip})


@dataclass(frozen=True, slots=True)
class Event:
    """What a worker reports; the last one of a task is one of those that `kind` names last."""

    slot: str
    """Which worker."""
    task: int
    """Number of the task."""
    kind: str
    """"started", "loading", "loaded", "open" (a shard), "frames", "shard" (is made); at the end
    "done", "failed", "refused" (no task can succeed before the user gives another value), "fatal"
    (none can for another reason) or "died"."""
    value: Any = None
    """Frames: how many more. Of a shard: its number. Done: the answer. Died: the reason, and what
    it said last. Otherwise: the reason, one line."""
    retry: bool = False
    """Of "failed": whether another try could succeed."""

    def error(self) -> ApeStreamError:
        """What the run raises because of it."""
        kind = UsageError if self.kind == "refused" else ApeStreamError
        return kind(str(self.value))


def make_job(address: str, options: Mapping[str, Any]) -> Job:
    """Make a job from its address and options."""
    module, _, factory = address.partition(":")
    job: Job = getattr(import_module(module), factory)(**options)
    return job
