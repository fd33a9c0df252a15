"""What happens inside a worker: tasks in, events out. The same under every engine."""

from __future__ import annotations

import errno
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from ape_stream.batch.clips import clip_spec
from ape_stream.batch.folder import OutFolder
from ape_stream.batch.job import ClipResults, make_job
from ape_stream.batch.memory import trim
from ape_stream.batch.reading import Reading
from ape_stream.errors import ApeStreamError, SinkError, SourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ape_stream.batch.clips import Clip
    from ape_stream.batch.job import Job, Setup, Task
    from ape_stream.batch.shards import ShardFolder
    from ape_stream.types import Frame

__all__ = ["Emit", "Worker"]

_DISK_IS_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS))
"""Of these only writing fails, wherever they come up."""
_NO_CLIP_IS_AT_FAULT: Final = _DISK_IS_FULL | {errno.EIO, errno.EACCES, errno.EPERM}
"""Refusals of the output folder that would meet every clip."""


class Emit(Protocol):
    """Takes what a worker reports; see `Event`."""

    def __call__(self, kind: str, value: Any = None, *, retry: bool = False) -> None:
        """Take it."""


class Worker:
    """Does one task after the other.

    Args:
        setup: What all tasks have in common.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._out = OutFolder(Path(setup.out))
        self._job: Job | None = None
        self._loaded = False

    def run(self, task: Task, emit: Emit) -> None:
        """Do a task; the last thing emitted is "done", "failed", "refused" or "fatal"."""
        emit("started")
        try:
            emit("done", self._run(task, emit))
        except _FatalError as error:
            given = isinstance(error.__cause__, UsageError)
            emit("refused" if given else "fatal", _line(error))
        except SinkError as error:
            number = getattr(error.__cause__, "errno", None)
            emit("fatal" if number in _NO_CLIP_IS_AT_FAULT else "failed", self._shown(error))
        except (SourceError, UsageError) as error:
            emit("failed", self._shown(error))
        # Any error may come of a clip that no code has met before: the others are still done.
        except Exception as error:  # noqa: BLE001
            full = getattr(error, "errno", None) in _DISK_IS_FULL
            reason = f"{type(error).__name__}: {self._shown(error)}"
            emit("fatal" if full else "failed", reason, retry=not full)
        finally:
            trim()

    def _shown(self, error: object) -> str:
        """One line, with paths as they are on every machine."""
        line = _line(error)
        for folder in (self._setup.folder, self._setup.out):
            line = line.replace(f"{folder}/", "") if folder else line
        return line

    def _run(self, task: Task, emit: Emit) -> Any:
        if task.kind == "identify":
            return self._made().identity()
        assert task.clip is not None  # noqa: S101 (for the type checker)
        if task.kind == "probe":
            return self._reading(task.clip).estimate()
        if task.kind == "find":
            return self._find(task.clip, task, emit)
        return self._write(task.clip, emit)

    def _made(self) -> Job:
        if self._job is None:
            try:
                self._job = make_job(self._setup.job, self._setup.options)
            except ApeStreamError as error:
                raise _FatalError(_line(error)) from error
        return self._job

    def _ready(self, emit: Emit) -> Job:
        """The job, with what it needs to describe frames."""
        job = self._made()
        if not self._loaded:
            emit("loading")
            try:
                job.load()
            except ApeStreamError as error:
                raise _FatalError(_line(error)) from error
            self._loaded = True
            emit("loaded")
        return job

    def _reading(self, clip: Clip) -> Reading:
        try:
            clip.source.encode()
        except UnicodeEncodeError as error:  # records and annotation formats are UTF-8
            raise SourceError("its name is not UTF-8: rename the file") from error
        folder = None if self._setup.folder is None else Path(self._setup.folder)
        spec, setup = clip_spec(folder, clip), self._setup
        return Reading(spec, clip.name, setup.selection, setup.source, folder)

    def _find(self, clip: Clip, task: Task, emit: Emit) -> None:
        """Make the shards of a clip that are not there yet."""
        size = self._setup.shard_frames
        shards = self._out.shards(clip)
        there = shards.numbers()
        reading = self._reading(clip)
        frames = reading.frames(
            lambda position: position // size >= task.first and position // size not in there,
            stop=None if task.stop is None else task.stop * size,
            ahead=self._made().batch,
        )
        # A clip that cannot be read, or has nothing left to do, loads no model.
        first = next(frames, None)
        job = self._made() if first is None else self._ready(emit)
        open_shard = _OpenShard(job, shards, emit)
        for position, frame in frames if first is None else chain([first], frames):
            open_shard.add(position // size, frame)
        if task.stop is not None:
            open_shard.close()
            return
        if not reading.taken:
            raise SourceError(f"{clip.source} has no frame in the chosen range")
        end = {"frames": reading.taken, "problem": reading.problem and self._shown(reading.problem)}
        last = (reading.taken - 1) // size
        open_shard.close(end if open_shard.number == last else None)
        if shards.last() is None:  # the last shard was written before its end was known
            shards.write(last + 1, [], end)

    def _write(self, clip: Clip, emit: Emit) -> dict[str, Any]:
        shards = self._out.shards(clip)
        end = shards.end()
        if end is None:
            raise ValueError("its shards are not whole")
        reading = self._reading(clip)
        results = ClipResults(
            clip=clip,
            payloads=shards.frames,
            frames=lambda: (frame for _, frame in reading.frames(lambda _: True)),
            outputs=self._out.outputs(clip),
            work=self._out.clip_work(clip),
            root=self._out.root,
            folder=None if self._setup.folder is None else Path(self._setup.folder),
            end=end,
            rate=lambda: reading.rate,
        )
        found, files = self._made().finish(results, lambda count: emit("frames", count))
        names = [path.relative_to(self._out.root).as_posix() for path in files]
        return {"found": found, "files": names}


class _OpenShard:
    """The shard that is being made: frames go through the job in batches.

    A full shard is held back until the next frame comes: only then it is known not to be the last.
    """

    def __init__(self, job: Job, shards: ShardFolder, emit: Emit) -> None:
        self._job = job
        self._shards = shards
        self._emit = emit
        self._waiting: list[Frame] = []
        self._payloads: list[bytes] = []
        self.number: int | None = None
        """Its number; None before the first frame."""

    def add(self, number: int, frame: Frame) -> None:
        """Take the next frame, and write the shard before if this is the next one's."""
        if number != self.number:
            self.close()
            self.number = number
            self._emit("open", number)
        self._waiting.append(frame)
        # Batches begin with the shard: which frames share a call never depends on the run.
        if len(self._waiting) == self._job.batch:
            self._describe()

    def _describe(self) -> None:
        if self._waiting:
            self._payloads += _one_each(self._waiting, self._job.describe(self._waiting))
            self._emit("frames", len(self._waiting))
            self._waiting = []

    def close(self, end: dict[str, Any] | None = None) -> None:
        """Write what there is."""
        self._describe()
        if self._payloads and self.number is not None:
            self._shards.write(self.number, self._payloads, end)
            self._emit("shard", self.number)
        self._payloads = []


def _one_each(frames: Sequence[Frame], payloads: list[bytes]) -> list[bytes]:
    if len(frames) != len(payloads):
        raise ValueError(f"{len(payloads)} results for {len(frames)} frames")
    return payloads


class _FatalError(Exception):
    """No task can succeed."""


def _line(error: object) -> str:
    return " ".join(str(error).split())
