"""Drives the workers: which clip next, what to do about one that dies, when all is done.

Two pools: one finds (model), one writes final files and asks clips for their length. So the next
clip is perceived while the one before is written. Every decision depends on what is on the disk,
and what is on the disk does not depend on the decisions.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from itertools import count
from queue import Empty
from typing import TYPE_CHECKING, Any, Final

from ape_stream.batch.job import Task
from ape_stream.batch.state import ATTEMPTS, Progress, Rate, left_s
from ape_stream.batch.waiting import Waiting
from ape_stream.batch.workers import EARLY_DEATHS
from ape_stream.errors import ApeStreamError, StoppedError

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from queue import Queue

    from ape_stream.batch.folder import OutFolder
    from ape_stream.batch.job import Event
    from ape_stream.batch.processes import Pool
    from ape_stream.batch.state import ClipState, Listener

__all__ = ["Schedule"]

_PROBE_S: Final = 20.0
"""Seconds without a sign of life after which a worker that asks a clip for its length is ended."""
_SHOW_EVERY_S: Final = 0.2
"""Between two reports of the progress."""
_SAME_FAULT: Final = 5
"""Clips that may fail in a row at the start, before the machine or the model is held at fault."""


@dataclass(slots=True)
class _Running:
    """A task that a worker has."""

    task: Task
    state: ClipState | None
    pool: Pool
    since_s: float
    """Of its last sign of life."""
    may_wait: bool = True
    """Until its process has started, and while a model is loaded, which may take minutes, no sign
    of life is expected."""
    loading: bool = False
    """Whether a model is being loaded."""
    stalled: bool = False
    """Whether it was ended because it gave none."""
    at: int = 0
    """The clip's frame that it has come to."""
    frames: int = 0
    """Frames that it did and that are in no shard yet."""


class Schedule:
    """One run of a job, once its plan is known.

    Args:
        out: The output folder, locked.
        states: The clips; those that are over already stay as they are.
        digest: Of the plan; see `Plan.write_digest`.
        pools: Workers with a model, and workers for final files.
        events: What the workers of both report.
        listener: Gets its progress.
        shard_frames: Frames of a shard.
        stall_s: Seconds without a sign of life after which a worker is ended.
    """

    def __init__(
        self,
        out: OutFolder,
        states: Sequence[ClipState],
        digest: str,
        pools: tuple[Pool, Pool],
        events: Queue[Event],
        listener: Listener,
        *,
        shard_frames: int,
        stall_s: float,
    ) -> None:
        self._out = out
        self._states = states
        self._digest = digest
        self._find, self._write = pools
        self._events = events
        self._listener = listener
        self._shard_frames = shard_frames
        self._stall_s = stall_s
        self._waiting = Waiting(states, shard_frames)
        self._open = sum(not state.is_over for state in states)
        self._counts: Counter[str] = Counter()
        for state in states:
            self._count_words(state)
        self._running: dict[str, _Running] = {}
        self._numbers = count(1)
        self._finding = Rate()
        self._writing = Rate()
        self._shards_made = 0
        self._early_deaths = 0  # since a worker did something
        self._costly = 0  # clips that failed in this run and cost a worker each time
        self._shown_s = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until every clip is done or failed.

        Args:
            stop: Ends the run early when it is set.

        Raises:
            StoppedError: it was stopped.
            ApeStreamError: no clip can succeed, as where the disk is full.
        """
        while self._open:
            if stop.is_set():
                raise StoppedError("stopped")
            self._assign()
            try:
                self._handle(self._events.get(timeout=_SHOW_EVERY_S))
            except Empty:
                self._end_stalled()
            self._show()
        self._listener.progress(self.progress())

    def _assign(self) -> None:
        for pool, next_task in ((self._find, self._to_find), (self._write, self._to_write)):
            for slot in (slot for slot in pool.slots if slot not in self._running):
                task = next_task()
                if task is None:
                    break
                self._start(slot, pool, *task)

    def _to_find(self) -> tuple[Task, ClipState] | None:
        """A task for a worker with a model."""
        found = self._waiting.next_span(len(self._find.slots))
        if found is None:
            return None
        state, (first, stop) = found
        state.parts += 1
        return Task(next(self._numbers), "find", state.clip, first, stop), state

    def _to_write(self) -> tuple[Task, ClipState] | None:
        """A task for another worker: final files, or the length of a clip."""
        if (state := self._waiting.next_found()) is not None:
            state.status, state.written = "writing", 0
            return Task(next(self._numbers), "write", state.clip), state
        if (state := self._waiting.next_unknown()) is not None:
            return Task(next(self._numbers), "probe", state.clip), state
        return None

    def _start(self, slot: str, pool: Pool, task: Task, state: ClipState) -> None:
        self._running[slot] = _Running(task, state, pool, time.monotonic())
        pool.send(slot, task)

    # -- what workers report -----------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        running = self._running.get(event.slot)
        if running is None or running.task.number != event.task:
            return  # of a task that is no longer waited for
        running.since_s = time.monotonic()
        match event.kind:
            case "started":
                running.may_wait = False
            case "loading":
                running.may_wait = running.loading = True
            case "loaded":
                running.may_wait = running.loading = False
                self._finding.start()
            case "frames":
                self._count(running, event.value)
            case "open":
                running.at = event.value * self._shard_frames
            case "shard":
                self._made_shard(running)
            case "refused" | "fatal":
                raise event.error()
            case _:
                del self._running[event.slot]
                self._ended(running, event)

    def _ended(self, running: _Running, event: Event) -> None:
        """A worker is done with its task, in one of three ways."""
        if event.kind == "done":
            self._done(running, event.value)
        elif event.kind == "failed":
            self._failed(running, str(event.value), final=not event.retry)
        elif running.may_wait:
            self._died_early(running, ": ".join(filter(None, event.value)))
        else:
            reason, last_words = event.value
            if running.stalled:
                reason = f"its worker gave no sign of life for {self._limit_s(running):g} s"
            elif last_words:
                self._listener.note(f"{event.slot}: {last_words}")
            self._failed(running, reason, final=False)

    def _count(self, running: _Running, count: int) -> None:
        self._early_deaths = 0
        running.at += count
        running.frames += count
        state = running.state
        if state is not None and running.task.kind == "write":
            self._writing.add(count)
            state.written += count
        elif state is not None:
            self._finding.add(count)
            state.frames += count

    def _made_shard(self, running: _Running) -> None:
        self._shards_made += 1
        running.frames = 0
        if running.state is not None and running.state.attempts:
            # It goes on: what ended workers before, such as a person, is not the clip.
            running.state.attempts = []
            self._out.set_attempts(running.state.clip, [])

    def _done(self, running: _Running, answer: Any) -> None:
        self._early_deaths = 0
        state = running.state
        if state is None or state.is_over:
            return
        if running.task.kind == "probe":
            state.probed, state.expected = True, answer
        elif running.task.kind == "find":
            state.parts -= 1
            if not state.parts and not state.spans:
                self._check_shards(state)
        else:
            files = [self._out.root / name for name in answer["files"]]
            state.status, state.found = "done", answer["found"]
            self._out.mark_done(state.clip, self._digest, answer["found"], files)
            self._count_words(state)
            self._over(state)

    def _check_shards(self, state: ClipState) -> None:
        """All parts of a clip are made: go on to its final files, or find what is missing."""
        if state.take_end(self._out.shards(state.clip).end()):
            self._waiting.add(state)
        else:
            why = "its shards are not whole"
            self._again(state, why, during="find", at=state.frames, final=False)

    def _died_early(self, running: _Running, reason: str) -> None:
        """A worker died before it touched its clip, which is not at fault."""
        self._early_deaths += 1
        if self._early_deaths >= EARLY_DEATHS:
            raise ApeStreamError(
                f"{EARLY_DEATHS} workers died before they began: {reason}; the model or this"
                " machine is at fault, not the clips"
            )
        state = self._taken_back(running)
        if state is not None:
            self._wait_again(state)
            self._listener.note(f"{state.clip.name}: {reason}, before it began")

    def _failed(self, running: _Running, reason: str, *, final: bool) -> None:
        state = self._taken_back(running)
        if state is not None:
            during, at = running.task.kind, running.at
            self._again(state, reason, during=during, at=at, final=final)

    def _taken_back(self, running: _Running) -> ClipState | None:
        """The clip of a task that was not done, if that matters, without what was not kept."""
        state, task = running.state, running.task
        if state is None or state.is_over:
            return None
        if task.kind == "probe":
            state.probed = True  # whoever finds will meet the same, and report it
            return None
        if task.kind == "find":
            state.parts -= 1
            state.frames -= running.frames
            state.spans.append((task.first, task.stop))
        return state

    def _again(self, state: ClipState, reason: str, *, during: str, at: int, final: bool) -> None:
        """Try a clip again, or give it up."""
        attempt: dict[str, Any] = {"during": during, "reason": reason, "at": at}
        state.attempts.append({**attempt, "final": True} if final else attempt)
        self._out.set_attempts(state.clip, state.attempts)
        if state.given_up:
            state.status = "failed"
            self._over(state)
            self._stop_if_all_fail(state)
            return
        self._wait_again(state)
        self._listener.note(f"{state.clip.name}: {reason}; attempt {state.alike} of {ATTEMPTS}")

    def _wait_again(self, state: ClipState) -> None:
        # Shards that are whole are left out anyway.
        if not state.spans and not state.take_end(self._out.shards(state.clip).end()):
            state.status = "waiting"
        self._waiting.add(state)

    def _over(self, state: ClipState) -> None:
        self._open -= 1
        self._listener.clip(state)

    def _stop_if_all_fail(self, state: ClipState) -> None:
        """Where the first clips all cost their workers, it is not the clips' fault."""
        self._costly += not state.attempts[-1].get("final")
        if not self._shards_made and self._costly >= _SAME_FAULT:
            raise ApeStreamError(
                f"{self._costly} clips failed and none was begun: {state.reason}; the model or"
                " this machine is at fault, not the clips"
            )

    def _end_stalled(self) -> None:
        """End workers that gave no sign of life for too long; they are reported as died."""
        for slot, running in self._running.items():
            silent_s = time.monotonic() - running.since_s
            if silent_s > self._limit_s(running) and not (running.may_wait or running.stalled):
                running.stalled = True
                running.pool.kill(slot)

    def _limit_s(self, running: _Running) -> float:
        return _PROBE_S if running.task.kind == "probe" else self._stall_s

    # -- how it stands -----------------------------------------------------------------------

    def _show(self) -> None:
        if time.monotonic() - self._shown_s >= _SHOW_EVERY_S:
            self._shown_s = time.monotonic()
            self._listener.progress(self.progress())

    def progress(self) -> Progress:
        """How all clips stand now."""
        known = all(state.expected is not None or state.is_over for state in self._states)
        expected = sum(max(state.expected or 0, state.frames) for state in self._states)
        return Progress(
            clips=self._states,
            found_hz=self._finding.hz,
            left_s=left_s(self._states, self._finding, self._writing),
            frames=sum(state.frames for state in self._states),
            expected=expected if known else None,
            loading=any(r.loading for r in self._running.values()) and not self._finding.count,
            counts=dict(self._counts),
        )

    def _count_words(self, state: ClipState) -> None:
        if state.found is not None:
            self._counts.update(state.found.get("counts", {}))
