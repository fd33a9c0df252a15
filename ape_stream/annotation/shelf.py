"""A whole run of annotation over a shelf of clips: plan, workers, final files of the job."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ape_stream.annotation.job import ADDRESS, OutputOptions
from ape_stream.annotation.outputs import FRAMES
from ape_stream.annotation.report import write_report
from ape_stream.annotation.summary import summary_of, write_summary
from ape_stream.batch.clips import RESERVED, find_clips
from ape_stream.batch.folder import OutFolder
from ape_stream.batch.job import Setup
from ape_stream.batch.plan import Plan
from ape_stream.batch.run import (
    SHARD_FRAMES,
    Takeover,
    plugin_values,
    run_job,
    write_failed,
)
from ape_stream.batch.selection import Selection
from ape_stream.batch.workers import Engine
from ape_stream.formats.records import (
    RESULTS,
    FrameRecord,
    JobRecord,
    VideoRecord,
    read_records,
)
from ape_stream.formats.registry import FORMATS, check_formats, open_writer
from ape_stream.sinks.coco import package_version

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ape_stream.batch.clips import Shelf
    from ape_stream.batch.state import ClipState, Listener
    from ape_stream.config import RunConfig
    from ape_stream.formats.writer import Loss

__all__ = ["ShelfOptions", "ShelfResult", "annotate_shelf"]


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
    batch: int = 1
    """Frames of one clip in one call of the model."""
    engine: Engine = field(default_factory=Engine)
    """What does the work."""
    takeover: Takeover = field(default_factory=Takeover)
    """What may become of earlier results."""
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
    check_formats(options.formats)
    out = OutFolder(options.out)
    shelf = find_clips(options.sources, without=options.out, reserved={*RESERVED, FRAMES, *FORMATS})
    with out.locked():
        plan, states = run_job(
            out,
            _plan(options, shelf),
            _setup(options, shelf),
            options.engine,
            _takeover(options),
            listener,
            stop,
        )
        return _finish(out, plan, states, options, listener)


def _takeover(options: ShelfOptions) -> Takeover:
    # Tracks that a review rejects change the files alone.
    may_differ = "outputs.rejected" if options.apply else None
    final_files = (RESULTS, "overlay.mp4", "sheet.png")
    return replace(options.takeover, may_differ=may_differ, final_files=final_files)


def _plan(options: ShelfOptions, shelf: Shelf) -> Plan:
    run = options.run
    find = {
        "prompts": [asdict(prompt) for prompt in run.prompts.with_threshold(run.threshold)],
        "model": plugin_values(run.model, without=("device",)),
        "source": options.source,
        "frames": asdict(options.selection),
        "batch": options.batch,
        "shard_frames": SHARD_FRAMES,
        "version": package_version(),
    }
    write = {
        "tracker": None if run.tracker is None else plugin_values(run.tracker),
        "formats": list(options.formats),
        "outputs": asdict(options.outputs),
    }
    return Plan(find, write, shelf.clips)


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
            images = out.root / FRAMES if options.outputs.save_frames else None
            for loss in _write_format(out, name, job, done, images):
                listener.note(f"{name} cannot hold {loss.count} {loss.what}")
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


def _write_format(
    out: OutFolder, name: str, job: JobRecord, done: list[ClipState], images: Path | None
) -> tuple[Loss, ...]:
    with open_writer(name, out.root, job, images=images, overwrite=True) as writer:
        for state in done:
            for video, frames in _videos(out.outputs(state.clip) / RESULTS):
                writer.begin_video(video)
                for frame in frames:
                    writer.frame(frame)
                writer.end_video()
    return writer.losses


def _videos(path: Path) -> Iterator[tuple[VideoRecord, Iterator[FrameRecord]]]:
    """The video of a clip's records, and its frames."""
    records = read_records(path)
    video = next(records, None)
    if isinstance(video, VideoRecord):
        yield video, (record for record in records if isinstance(record, FrameRecord))
