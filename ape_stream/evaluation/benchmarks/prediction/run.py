"""A whole run of predictions: what is asked, workers, going on where an earlier run ended."""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from queue import Queue
from typing import TYPE_CHECKING, Any

from ape_stream.batch.folder import OutFolder
from ape_stream.batch.job import Setup
from ape_stream.batch.run import plugin_values
from ape_stream.batch.schedule import Schedule
from ape_stream.batch.selection import Selection
from ape_stream.batch.state import ClipState
from ape_stream.batch.workers import Engine, identify
from ape_stream.config import PluginConfig
from ape_stream.errors import UsageError
from ape_stream.evaluation.benchmarks.places import Places
from ape_stream.evaluation.benchmarks.prediction.job import ADDRESS, PART_IMAGES, parts_of
from ape_stream.evaluation.benchmarks.prediction.manifest import Manifest, describe
from ape_stream.evaluation.benchmarks.prediction.source import open_task
from ape_stream.files import held, written
from ape_stream.plugins import PERCEIVER
from ape_stream.sinks.coco import package_version

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ape_stream.batch.clips import Clip
    from ape_stream.batch.job import Event
    from ape_stream.batch.state import Listener
    from ape_stream.evaluation.benchmarks.task import Profile, Task

__all__ = ["Part", "RunOptions", "parts_in", "predict"]

_PART = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Part:
    """One of several machines' share of a run."""

    number: int
    """From 1."""
    of: int
    """How many there are."""

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read "3/8".

        Raises:
            UsageError: it is no such share.
        """
        match = _PART.fullmatch(text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard is a number and how many there are, as 3/8; got {text!r}")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What is predicted, and how."""

    tasks: Sequence[Task]
    """The tasks, without a profile."""
    root: Path
    """The folder of all data sets."""
    out: Path
    """The folder of the predictions."""
    model: str = PERCEIVER
    """Plugin of the perceiver."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the perceiver."""
    profile: Profile = "honest"
    """See `Profile`."""
    limit: int | None = None
    """Most images of a task."""
    part: Part | None = None
    """The share of this machine."""
    engine: Engine = field(default_factory=Engine)
    """What does the work."""


def predict(options: RunOptions, listener: Listener, stop: threading.Event) -> list[ClipState]:
    """Predict the tasks, or what is missing of them.

    Args:
        options: What and how.
        listener: Gets its progress.
        stop: Ends the run when it is set; it can go on later.

    Returns:
        The parts of all tasks that are this machine's, each done or failed.

    Raises:
        UsageError: files of a task are missing, or the folder holds other predictions.
        StoppedError: it was stopped.
        ApeStreamError: nothing can be done.
    """
    _refuse_missing(options)
    manifest, chosen = _described(options)
    # Before anything is loaded: all but the digest of the weights is known.
    old = Manifest.load(options.out)
    known = {} if old is None else old.model.get("identity", {})
    _with_identity(manifest, known).joined(old, options.out)
    out = OutFolder(options.out)
    with _locked(out, options.part), ExitStack() as stack:
        events: Queue[Event] = Queue()
        setup = _setup(options, chosen)
        pool = stack.enter_context(options.engine.pool("worker", setup, events))
        manifest = _with_identity(manifest, identify(pool, events, stop))
        manifest.joined(Manifest.load(options.out), options.out).save(options.out)
        states = [_state(out, clip, manifest.digest) for clip in _own(manifest, options.part)]
        schedule = Schedule(
            out,
            states,
            manifest.digest,
            (pool, pool),  # one for both: nothing is written at the end of a part
            events,
            listener,
            shard_frames=setup.shard_frames,
            stall_s=options.engine.stall_s,
        )
        schedule.run(stop)
    return states


def _refuse_missing(options: RunOptions) -> None:
    missing = [
        one
        for task in options.tasks
        for one in Places(options.root, task.with_profile(options.profile)).missing()
    ]
    if missing:
        more = f"; and {len(missing) - 1} more (ape-stream eval check)" if missing[1:] else ""
        raise UsageError(f"{missing[0]}{more}")


def _described(options: RunOptions) -> tuple[Manifest, dict[str, str]]:
    """The manifest without the model's identity, and the task that is read for each prediction."""
    chosen: dict[str, str] = {}
    for task in options.tasks:
        chosen.setdefault(task.predicted_as, task.name)
    by_name = {task.name: task for task in options.tasks}
    sets = {}
    for name, task_name in chosen.items():
        task = by_name[task_name].with_profile(options.profile)
        dataset = open_task(task_name, str(options.root.absolute()), options.profile)
        sets[name] = describe(dataset, Places(options.root, task), options.limit)
    named = plugin_values(PluginConfig(options.model, options.options), without=("device",))
    manifest = Manifest(
        model=named,
        profile=options.profile,
        limit=options.limit,
        version=package_version(),
        predictions=sets,
    )
    return manifest, chosen


def _with_identity(manifest: Manifest, identity: dict[str, Any]) -> Manifest:
    return replace(manifest, model={**manifest.model, "identity": identity})


def parts_in(manifest: Manifest, name: str) -> list[Clip]:
    """The parts of one set of predictions."""
    one = manifest.predictions[name]
    return parts_of(name, one.task, one.images, one.digest)


def _own(manifest: Manifest, part: Part | None) -> list[Clip]:
    clips = [clip for name in manifest.predictions for clip in parts_in(manifest, name)]
    return clips if part is None else clips[part.number - 1 :: part.of]


def _state(out: OutFolder, clip: Clip, digest: str) -> ClipState:
    first, _, stop = clip.source.rpartition("?first=")[2].partition("&stop=")
    images = int(stop) - int(first)
    state = ClipState(clip, expected=images, probed=True)
    if (found := out.done(clip, digest)) is not None:
        state.status, state.found, state.frames, state.written = "done", found, images, images
    else:
        state.take_end(out.shards(clip).end())
    return state


def _setup(options: RunOptions, chosen: dict[str, str]) -> Setup:
    root = str(options.root.absolute())
    return Setup(
        job=ADDRESS,
        options={
            "model": {"plugin": options.model, "options": options.options},
            "tasks": chosen,
            "root": root,
            "profile": options.profile,
        },
        out=str(options.out.absolute()),
        folder=None,
        selection=Selection(),
        source={"root": root, "profile": options.profile},
        shard_frames=PART_IMAGES,
    )


def _locked(out: OutFolder, part: Part | None) -> AbstractContextManager[None]:
    return out.locked() if part is None else _share_locked(out, part)


@contextmanager
def _share_locked(out: OutFolder, part: Part) -> Iterator[None]:
    """Keep a second run of the same share out; other machines write other shards."""
    lock = out.work / f"lock-{part.number}-of-{part.of}"
    with written(lock):
        out.work.mkdir(parents=True, exist_ok=True)
        lock.touch()
    with held(lock):
        yield
