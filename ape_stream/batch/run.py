"""One run of a job over a shelf of clips: go on where an earlier run of the same plan ended."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any, Final

from ape_stream.batch.folder import json_bytes
from ape_stream.batch.plan import Plan, changes_of_clips, differences, load_plan
from ape_stream.batch.processes import ProcessPool
from ape_stream.batch.schedule import Schedule
from ape_stream.batch.shards import write_whole
from ape_stream.batch.state import ClipState
from ape_stream.batch.workers import identify
from ape_stream.errors import ConfigError

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from ape_stream.batch.clips import Clip
    from ape_stream.batch.folder import OutFolder
    from ape_stream.batch.job import Event, Setup
    from ape_stream.batch.state import Listener
    from ape_stream.batch.workers import Engine
    from ape_stream.config import PluginConfig

__all__ = ["SHARD_FRAMES", "Takeover", "plugin_values", "run_job", "write_failed"]

SHARD_FRAMES: Final = 128
"""Frames that a kill can cost, at most."""


@dataclass(frozen=True, slots=True)
class Takeover:
    """What may become of the results of an earlier run."""

    overwrite: bool = False
    """Replace what an earlier run with another plan made."""
    extend: bool = False
    """Go on though clips were added to the sources, or taken away."""
    retry_failed: bool = False
    """Try clips again that failed in an earlier run."""
    may_differ: str | None = None
    """Differences in what files depend on are no obstacle where they begin with this."""
    final_files: Sequence[str] = ()
    """Names of a clip's final files, which are not replaced where no plan made them."""


def plugin_values(config: PluginConfig, without: Sequence[str] = ()) -> dict[str, Any]:
    """A plugin as JSON values; of a path only the name, its content has a digest."""
    named = {
        key: Path(value).name if isinstance(value, str) and "/" in value else value
        for key, value in config.options.items()
        if key not in without
    }
    return {"plugin": config.plugin, "options": named}


def run_job(
    out: OutFolder,
    plan: Plan,
    setup: Setup,
    engine: Engine,
    takeover: Takeover,
    listener: Listener,
    stop: threading.Event,
) -> tuple[Plan, list[ClipState]]:
    """Work until every clip is done or failed.

    Args:
        out: The output folder, locked.
        plan: All but what only a worker knows; see `Job.identity`.
        setup: What the workers are started with.
        engine: What does the work.
        takeover: What may become of earlier results.
        listener: Gets its progress.
        stop: Ends the run when it is set; it can go on later.

    Returns:
        The whole plan, and every clip.

    Raises:
        ConfigError: the folder holds the results of another plan.
        StoppedError: it was stopped.
        ApeStreamError: nothing can be done, as where the disk is full.
    """
    old = load_plan(out.plan)
    # Before anything is loaded: all but the digest of the weights is known.
    known = {} if old is None else old.find.get("model_identity", {})
    _refuse(out, old, _with_identity(plan, known), takeover)
    with ExitStack() as stack:
        events: Queue[Event] = Queue()
        find = stack.enter_context(engine.pool("find", setup, events))
        write = stack.enter_context(ProcessPool(("write",), setup, events.put))
        plan = _with_identity(plan, identify(find, events, stop))
        _refuse(out, old, plan, takeover)
        _adopt(out, old, plan)
        states = [*_states(out, plan, retry_failed=takeover.retry_failed)]
        if not all(state.is_over for state in states):
            out.summary.unlink(missing_ok=True)
        schedule = Schedule(
            out,
            states,
            plan.write_digest,
            (find, write),
            events,
            listener,
            shard_frames=setup.shard_frames,
            stall_s=engine.stall_s,
        )
        schedule.run(stop)
    return plan, states


def _with_identity(plan: Plan, identity: dict[str, Any]) -> Plan:
    return replace(plan, find={**plan.find, "model_identity": identity})


# -- what an output folder holds already ---------------------------------------------------


def _refuse(out: OutFolder, old: Plan | None, new: Plan, takeover: Takeover) -> None:
    """Refuse to mix the results of two plans, or to replace what no plan made.

    Raises:
        ConfigError: it would; the message lists what differs.
    """
    if takeover.overwrite:
        return
    # A plan under which nothing was found protects nothing: a first command with a mistake in it
    # must not stand in the way of the right one.
    if old is None or not any(_has_results(out, old, clip) for clip in old.clips):
        _refuse_unplanned(out, new, takeover.final_files)
        return
    if old.find.keys() != new.find.keys():
        raise ConfigError(f"{out.root} is the folder of another command: give another --out-dir")
    found, written = differences(old.find, new.find), differences(old.write, new.write)
    if takeover.may_differ is not None:
        written = [line for line in written if not line.startswith(takeover.may_differ)]
    changes = changes_of_clips(old, new)
    # A clip that failed may have been repaired: nothing is lost with it.
    before = {clip.name: clip for clip in old.clips}
    lost = tuple(name for name in changes.changed if _has_results(out, old, before[name]))
    changes = replace(changes, changed=lost)
    clips = replace(changes, added=(), missing=()) if takeover.extend else changes
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


def _refuse_unplanned(out: OutFolder, new: Plan, names: Sequence[str]) -> None:
    for path in (out.outputs(clip) / name for clip in new.clips for name in names):
        if path.exists():
            raise ConfigError(
                f"{path} exists already, of no job: give another --out-dir, or replace it with"
                " --overwrite"
            )


def _has_results(out: OutFolder, plan: Plan, clip: Clip) -> bool:
    return bool(out.shards(clip).numbers()) or out.done(clip, plan.write_digest) is not None


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


def _states(out: OutFolder, plan: Plan, *, retry_failed: bool) -> Iterator[ClipState]:
    """Every clip, as earlier runs left it."""
    for clip in plan.clips:
        state = ClipState(clip, attempts=[] if retry_failed else out.attempts(clip))
        shards = out.shards(clip)
        state.frames = sum(footer.count for n in shards.numbers() if (footer := shards.footer(n)))
        if (found := out.done(clip, plan.write_digest)) is not None:
            state.status, state.found = "done", found
            state.frames = state.expected = state.written = found["frames"]
        elif state.given_up:
            state.status = "failed"
        else:
            state.take_end(shards.end())
        yield state


def write_failed(path: Path, states: Sequence[ClipState]) -> None:
    """Write `failed.jsonl`, a line for each clip that could not be done; none removes it.

    Raises:
        SinkError: it cannot be written.
    """
    failed = [state for state in states if state.status == "failed"]
    if not failed:
        path.unlink(missing_ok=True)
        return
    lines = [
        {
            "clip": state.clip.name,
            "source": state.clip.source,
            "attempts": len(state.attempts),
            "during": state.attempts[-1]["during"],
            "reason": state.reason,
        }
        for state in failed
    ]
    write_whole(path, b"".join(map(json_bytes, lines)))
