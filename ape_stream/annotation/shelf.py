"""A whole run of annotation over a shelf of clips: plan, workers, final files of the job."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ape_stream.annotation.job import ADDRESS, OutputOptions
from ape_stream.annotation.outputs import FRAMES, RESULTS
from ape_stream.annotation.report import write_report
from ape_stream.annotation.summary import summary_of, write_failed, write_summary
from ape_stream.batch.clips import RESERVED, find_clips
from ape_stream.batch.folder import OutFolder
from ape_stream.batch.job import Setup
from ape_stream.batch.plan import Plan, changes_of_clips, differences, load_plan
from ape_stream.batch.processes import ProcessPool
from ape_stream.batch.schedule import Schedule
from ape_stream.batch.selection import Selection
from ape_stream.batch.state import ClipState
from ape_stream.errors import ConfigError
from ape_stream.formats.records import FrameRecord, JobRecord, VideoRecord, read_records
from ape_stream.formats.registry import FORMATS, open_writer
from ape_stream.sinks.coco import package_version

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from ape_stream.batch.clips import Shelf
    from ape_stream.batch.state import Listener
    from ape_stream.config import PluginConfig, RunConfig

__all__ = ["ShelfOptions", "ShelfResult", "annotate_shelf"]

SHARD_FRAMES: Final = 128
"""Frames that a kill can cost, at most."""


@dataclass(frozen=True, slots=True)
class ShelfOptions:
    """What is annotated, and how."""

    sources: Sequence[str]
    """Files, folders, patterns, lists."""
    out: Path
    """The output folder."""
    run: RunConfig
    """Prompts, model, tracker and threshold; its sources and outputs do not count."""
    source: dict[str, Any]
    """Options of every source."""
    selection: Selection = field(default_factory=Selection)
    """Which frames."""
    formats: tuple[str, ...] = ("coco",)
    """Names of annotation formats that are written over all clips."""
    outputs: OutputOptions = field(default_factory=OutputOptions)
    """Which files each clip gets."""
    jobs: int = 1
    """Workers with a model."""
    batch: int = 1
    """Frames of one clip in one call of the model."""
    stall_s: float = 300.0
    """Seconds without a sign of life after which a worker is ended."""
    engine: str = "processes"
    """"processes" or "ray"."""
    address: str | None = None
    """Of a running Ray cluster; None starts one here."""
    overwrite: bool = False
    """Replace what an earlier run with another plan made."""
    extend: bool = False
    """Go on though clips were added to the sources, or taken away."""
    retry_failed: bool = False
    """Try clips again that failed in an earlier run."""
    apply: bool = False
    """Write files again without the tracks that `outputs` rejects."""


@dataclass(frozen=True, slots=True)
class ShelfResult:
    """What came of a run."""

    states: Sequence[ClipState]
    """Every clip, done or failed."""
    summary: dict[str, Any]
    """What `summary.json` holds."""
    files: tuple[Path, ...]
    """Files and folders over all clips."""


def annotate_shelf(options: ShelfOptions, listener: Listener, stop: threading.Event) -> ShelfResult:
    """Annotate clips, or go on where an earlier run of the same plan ended.

    Args:
        options: What and how.
        listener: Gets its progress.
        stop: Ends the run when it is set; it can go on later.

    Raises:
        ConfigError: the folder holds the results of another plan.
        StoppedError: it was stopped.
        ApeStreamError: nothing can be done, as where the disk is full.
    """
    for name in options.formats:
        if name not in FORMATS:
            raise ConfigError(f"there is no format {name!r}; there are: {', '.join(FORMATS)}")
    out = OutFolder(options.out)
    shelf = find_clips(options.sources, without=options.out, reserved={*RESERVED, FRAMES, *FORMATS})
    with out.locked(), ExitStack() as stack:
        plan = _plan(options, shelf)
        old = load_plan(out.plan)
        # Before anything is loaded: all but the digest of the weights is known.
        known = {} if old is None else old.find.get("model_identity", {})
        _refuse(out, old, _with_identity(plan, known), options)
        setup = _setup(options, shelf)
        # The schedule needs the plan's digest, which needs an answer of a worker.
        schedule = Schedule(out, shard_frames=SHARD_FRAMES, stall_s=options.stall_s)
        find = stack.enter_context(_find_pool(options, setup, schedule))
        write = stack.enter_context(ProcessPool(("write",), setup, schedule.events.put))
        plan = _with_identity(plan, schedule.identify(find, stop))
        _refuse(out, old, plan, options)
        _adopt(out, old, plan)
        states = _states(out, plan, retry_failed=options.retry_failed)
        if not all(state.is_over for state in states):
            out.summary.unlink(missing_ok=True)
        schedule.run(states, plan.write_digest, (find, write), listener, stop)
        return _finish(out, plan, states, options, listener)


def _plan(options: ShelfOptions, shelf: Shelf) -> Plan:
    run = options.run
    find = {
        "prompts": [asdict(prompt) for prompt in run.prompts.with_threshold(run.threshold)],
        "model": _plugin(run.model, without=("device",)),
        "source": options.source,
        "frames": asdict(options.selection),
        "batch": options.batch,
        "shard_frames": SHARD_FRAMES,
        "version": package_version(),
    }
    write = {
        "tracker": None if run.tracker is None else _plugin(run.tracker),
        "formats": list(options.formats),
        "outputs": asdict(options.outputs),
    }
    return Plan(find, write, shelf.clips)


def _with_identity(plan: Plan, identity: dict[str, Any]) -> Plan:
    return replace(plan, find={**plan.find, "model_identity": identity})


def _plugin(config: PluginConfig, without: Sequence[str] = ()) -> dict[str, Any]:
    """A plugin as JSON values; of a path only the name, its content has a digest."""
    named = {
        key: Path(value).name if isinstance(value, str) and "/" in value else value
        for key, value in config.options.items()
        if key not in without
    }
    return {"plugin": config.plugin, "options": named}


def _setup(options: ShelfOptions, shelf: Shelf) -> Setup:
    run = options.run
    prompts = run.prompts.with_threshold(run.threshold)
    tracker = None if run.tracker is None else asdict(run.tracker)
    job = {
        "prompts": [_present(asdict(prompt)) for prompt in prompts],
        "model": asdict(run.model),
        "tracker": tracker,
        "outputs": asdict(options.outputs),
        "batch": options.batch,
    }
    return Setup(
        job=ADDRESS,
        options=job,
        out=str(options.out.absolute()),
        folder=None if shelf.folder is None else str(shelf.folder),
        selection=options.selection,
        source=options.source,
        shard_frames=SHARD_FRAMES,
    )


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _find_pool(options: ShelfOptions, setup: Setup, schedule: Schedule) -> Any:
    slots = tuple(f"find {k}" for k in range(1, options.jobs + 1))
    if options.engine == "processes":
        return ProcessPool(slots, setup, schedule.events.put)
    from ape_stream.batch.ray_pool import RayPool  # noqa: PLC0415 (an extra)

    return RayPool(slots, setup, schedule.events.put, address=options.address)


# -- what an output folder holds already ---------------------------------------------------


def _refuse(out: OutFolder, old: Plan | None, new: Plan, options: ShelfOptions) -> None:
    """Refuse to mix the results of two plans, or to replace what no plan made.

    Raises:
        ConfigError: it would; the message lists what differs.
    """
    if options.overwrite:
        return
    if old is None:
        _refuse_strangers(out, new)
        return
    found, written = differences(old.find, new.find), differences(old.write, new.write)
    if options.apply:
        written = [line for line in written if not line.startswith("outputs.rejected")]
    changes = changes_of_clips(old, new)
    # A clip that failed may have been repaired: nothing is lost with it.
    lost = tuple(name for name in changes.changed if _has_results(out, old, name))
    changes = replace(changes, changed=lost)
    clips = replace(changes, added=(), missing=()) if options.extend else changes
    lines = [*found, *written, *clips.lines()]
    if not lines:
        return
    remedy = "give another --out-dir, or --overwrite to replace them"
    if not found and not written and not lost:
        remedy = "--extend takes such changes in"
    elif not found and not clips.lines():
        remedy = "--overwrite writes the files again from what was found, without the model"
    raise ConfigError(
        f"{out.root} holds the results of another plan ({'; '.join(lines)}): {remedy}"
    )


def _refuse_strangers(out: OutFolder, new: Plan) -> None:
    for clip in new.clips:
        for path in (out.outputs(clip) / name for name in (RESULTS, "overlay.mp4", "sheet.png")):
            if path.exists():
                raise ConfigError(
                    f"{path} exists already, of no job: give another --out-dir, or replace it with"
                    " --overwrite"
                )


def _has_results(out: OutFolder, plan: Plan, name: str) -> bool:
    clip = next(clip for clip in plan.clips if clip.name == name)
    return bool(out.shards(clip).numbers())


def _adopt(out: OutFolder, old: Plan | None, new: Plan) -> None:
    """Make this the folder's plan, and forget what was found by another one."""
    if old == new:
        return
    out.summary.unlink(missing_ok=True)
    stale = set(changes_of_clips(old, new).changed) if old is not None else set()
    others = old is None or differences(old.find, new.find)
    for clip in new.clips:
        if others or clip.name in stale:
            out.forget(clip)
    new.save(out.plan)


def _states(out: OutFolder, plan: Plan, *, retry_failed: bool) -> list[ClipState]:
    states = []
    for clip in plan.clips:
        state = ClipState(clip, attempts=[] if retry_failed else out.attempts(clip))
        shards = out.shards(clip)
        state.frames = sum(footer.count for n in shards.numbers() if (footer := shards.footer(n)))
        if (found := out.done(clip, plan.write_digest)) is not None:
            state.status, state.found = "done", found
            state.frames = state.expected = state.written = found["frames"]
        elif state.given_up:
            state.status = "failed"
        elif shards.last() is not None and Schedule.is_whole(out, state):
            state.status = "found"
        states.append(state)
    return states


# -- the final files of the job ------------------------------------------------------------


def _finish(
    out: OutFolder,
    plan: Plan,
    states: list[ClipState],
    options: ShelfOptions,
    listener: Listener,
) -> ShelfResult:
    """Write the files over all clips; `summary.json` comes last and says that all is whole."""
    summary = summary_of(states, options.run.prompts.texts)
    folders = [out.root / name for name in options.formats]
    if not (out.summary.exists() and all(folder.exists() for folder in folders)):
        done = [state for state in states if state.status == "done"]
        job = _job_record(plan, options)
        for name in options.formats:
            listener.note(f"writing {name}")
            _write_format(out, name, job, done)
        write_report(out, done)
        write_failed(out.failed, states)
        write_summary(out.summary, summary)
    files = (*folders, out.report, out.summary, *([out.failed] if out.failed.exists() else []))
    return ShelfResult(states, summary, files)


def _job_record(plan: Plan, options: ShelfOptions) -> JobRecord:
    model = plan.find["model"]
    return JobRecord(
        prompts=tuple(options.run.prompts),
        model=str(model["options"].get("model", model["plugin"])),
        threshold=options.run.threshold,
        version=plan.find["version"],
    )


def _write_format(out: OutFolder, name: str, job: JobRecord, done: list[ClipState]) -> None:
    with open_writer(name, out.root, job, overwrite=True) as writer:
        for state in done:
            for video, frames in _videos(out.outputs(state.clip) / RESULTS):
                writer.begin_video(video)
                for frame in frames:
                    writer.frame(frame)
                writer.end_video()


def _videos(path: Path) -> Iterator[tuple[VideoRecord, Iterator[FrameRecord]]]:
    """The video of a clip's records, and its frames."""
    records = read_records(path)
    video = next(records, None)
    if isinstance(video, VideoRecord):
        yield video, (record for record in records if isinstance(record, FrameRecord))
