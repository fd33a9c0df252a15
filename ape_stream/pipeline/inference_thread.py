"""The one thread that calls the model: it perceives, tracks, and takes new prompts.

It takes frames only when their results will have room, so what it works on is as new as can be,
and a slow sink makes a live run drop frames before the model, not after it.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ape_stream.channel import Aborted, Channel
from ape_stream.errors import ApeStreamError, PipelineError, PromptError, SourceError
from ape_stream.pipeline.run_state import FAILED
from ape_stream.protocols import PaintsMaps, ReportsMemory
from ape_stream.stats import StageMeter
from ape_stream.types import FrameResult
from ape_stream.values.frame import DeferredFrame

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from ape_stream.pipeline.maps import MapRequest
    from ape_stream.pipeline.stream import SourceStream
    from ape_stream.stats import DeviceMemory
    from ape_stream.types import Frame, Instances, Maps, PromptSet

__all__ = ["InferenceThread"]

UNREADABLE = "unreadable"
"""Cause of a drop: the image of a deferred frame could not be made."""
_log = logging.getLogger("ape_stream")

Batch = list[tuple["SourceStream", "Frame"]]
"""At most one frame of every stream, for one call of the model."""

Finding = tuple["Instances", "Maps", dict[str, float]]
"""What was found in one frame, its maps, and milliseconds by stage so far."""


@dataclass(frozen=True, slots=True, eq=False)
class _PromptChange:
    """New prompts, a new threshold, or both; what is None stays as it is."""

    prompts: PromptSet | None
    threshold: float | None
    answer: Future[PromptSet]


class InferenceThread:
    """The model's thread.

    Args:
        model: The perceiver, and which maps it makes.
        streams: The streams.
        prompts: The first prompts; nothing is prepared before the first `request`.
        threshold: Score for prompts without one of their own, 0..1; None leaves it to the model.
        guard: The lock of the whole pipeline.
    """

    def __init__(
        self,
        model: MapRequest,
        streams: Sequence[SourceStream],
        prompts: PromptSet,
        threshold: float | None,
        guard: threading.Condition,
    ) -> None:
        # One batch waits for the sinks while the next is perceived: once the first of its S results
        # is taken, S - 1 wait, and the next batch finds room for S.
        self.results: Channel[tuple[SourceStream, FrameResult]] = Channel(
            2 * len(streams) - 1, guard=guard, on_drop=_lost
        )
        self.preparing = StageMeter()
        self.perceiving = StageMeter()
        self.tracking = StageMeter()
        self._maps = model
        self._perceiver = model.perceiver
        self._streams = streams
        self._guard = guard
        # `_given` as the user wrote them; `_active` with the threshold filled in. Both are kept,
        # because a later threshold applies again only to prompts without one of their own.
        self._given = prompts
        self._threshold = threshold
        self._active = prompts.with_threshold(threshold)
        self._prepared = False  # whether the model knows `_active`
        self._begun = False  # whether the thread runs
        self._pending: list[_PromptChange] = []
        self._over = False

    # -- called from other threads ---------------------------------------------------------

    def request(
        self, prompts: PromptSet | None = None, threshold: float | None = None
    ) -> Future[PromptSet]:
        """Ask for new prompts, a threshold or both; the answer holds what is active then.

        Asking for neither prepares the prompts that the run was made with. What is asked for before
        the thread runs takes their place, and is judged with them: nobody could answer sooner.
        """
        answer: Future[PromptSet] = Future()
        with self._guard:
            if self._over:
                answer.set_exception(_too_late())
            elif not self._begun and (prompts is not None or threshold is not None):
                self._given = prompts if prompts is not None else self._given
                self._threshold = threshold if threshold is not None else self._threshold
                self._active = self._given.with_threshold(self._threshold)
                answer.set_result(self._active)
            else:
                self._pending.append(_PromptChange(prompts, threshold, answer))
                self._guard.notify_all()
        return answer

    def cancel_pending(self) -> None:
        """Refuse all changes that still wait: the run is over."""
        with self._guard:
            # From here on `request` refuses by itself: nothing is added that nobody would answer.
            self._over = True
            for change in self._pending:
                change.answer.set_exception(_too_late())
            self._pending.clear()

    @property
    def active_prompts(self) -> PromptSet:
        """The prompts of the next frame, with thresholds filled in."""
        with self._guard:
            return self._active

    @property
    def paints_maps(self) -> bool:
        """Whether the perceiver makes maps."""
        return isinstance(self._perceiver, PaintsMaps)

    def device_memory(self) -> DeviceMemory | None:
        """Memory of the model's device, where the perceiver reports it."""
        perceiver = self._perceiver
        return perceiver.device_memory() if isinstance(perceiver, ReportsMemory) else None

    # -- the thread -----------------------------------------------------------------------

    def run(self) -> None:
        """Work until every stream has ended.

        Raises:
            Aborted: the run is over.
            PipelineError: the perceiver or a tracker failed.
        """
        with self._guard:
            self._begun = True
        while batch := self._next_batch():
            if batch := self._made(batch):
                self._deliver(batch, self._perceive(batch))
        self.results.end()

    def _made(self, batch: Batch) -> Batch:
        """The batch with the images of deferred frames; without those that cannot be read."""
        made: Batch = []
        for stream, frame in batch:
            try:
                made.append((stream, DeferredFrame.of(frame)))
            except (SourceError, ValueError) as error:
                with self._guard:
                    stream.counters.leave("perceiving")
                    stream.counters.drop(UNREADABLE)
                _log.debug("%s #%d is left out: %s", frame.stream, frame.index, error)
        return made

    def _next_batch(self) -> Batch:
        """One frame of each stream that has one; empty once all have ended."""
        while True:
            with self._guard:
                self._wait_for_work()
                if self.results.abort_cause is not None:
                    raise Aborted
                # Changes come first: the frames that wait are then perceived with the new prompts.
                if not self._pending:
                    return self._take()
                # It stays in the list until it is answered, so that `cancel_pending` finds it
                # meanwhile.
                change = self._pending[0]
            self._apply(change)

    def _wait_for_work(self) -> None:
        # Waiting counts as blocked where frames are ready but their results would have no room, and
        # as starved where no frame is ready.
        start = time.monotonic()
        # Read before the wait: why it begins, not what ends it.
        blocked = sum(stream.channel.ready > 0 for stream in self._streams) > self.results.room
        self._guard.wait_for(self._has_work)
        waited = time.monotonic() - start
        if blocked:
            self.perceiving.blocked_s += waited
        else:
            self.perceiving.starved_s += waited

    def _has_work(self) -> bool:
        ready = sum(stream.channel.ready > 0 for stream in self._streams)
        # A batch is taken only if all its results fit: then `results.put` never waits, and what is
        # taken is the newest at that moment.
        return bool(
            self._pending
            or self.results.abort_cause is not None
            or 0 < ready <= self.results.room
            or all(stream.channel.exhausted for stream in self._streams)
        )

    def _take(self) -> Batch:
        # `get` does not wait: the guard has been held since `ready` was read.
        batch = [(stream, stream.channel.get()) for stream in self._streams if stream.channel.ready]
        for stream, _ in batch:
            stream.counters.enter("perceiving")
        return batch

    def _apply(self, change: _PromptChange) -> None:
        """Prepare the changed prompts, or leave all as it was and answer with the reason."""
        given = change.prompts if change.prompts is not None else self._given
        threshold = change.threshold if change.threshold is not None else self._threshold
        effective = given.with_threshold(threshold)
        try:
            with self._timed(self.preparing):
                self._perceiver.prepare(effective)
        except Exception as error:  # noqa: BLE001 (any error is the answer to the request)
            self._restore()
            self._answer(change, error)
            return
        # Without the guard until here: encoding prompts may take seconds, sources go on reading.
        with self._guard:
            self._given, self._threshold, self._active = given, threshold, effective
            self._prepared = True
        self._answer(change, None)

    def _restore(self) -> None:
        """A model may have kept half of a refused set: give it the old one again (all cached)."""
        if self._prepared:
            with _named("perceiver, restoring its old prompts,"):
                self._perceiver.prepare(self._active)

    def _answer(self, change: _PromptChange, error: Exception | None) -> None:
        with self._guard:
            if change not in self._pending:  # cancelled: the run is over
                return
            self._pending.remove(change)
        if error is None:
            change.answer.set_result(self._active)
        elif isinstance(error, ApeStreamError):
            change.answer.set_exception(error)
        else:
            reason = PromptError(f"the model refused the prompts: {type(error).__name__}: {error}")
            reason.__cause__ = error
            change.answer.set_exception(reason)

    def _perceive(self, batch: Batch) -> list[Finding]:
        frames = [frame for _, frame in batch]
        start_ns = time.monotonic_ns()
        try:
            with _named(f"perceiver, on {_list(frames)},"), self._timed(self.perceiving):
                found = _one_each(frames, self._maps.perceive(frames))
        except BaseException:
            # The frames were counted as "perceiving": every way out must count them somewhere else.
            self._lose(batch)
            raise
        model_ms = (time.monotonic_ns() - start_ns) / 1e6
        # From capture to the start of the call.
        waits_ms = [(start_ns - frame.captured_ns) / 1e6 for frame in frames]
        return [
            (instances, maps, {"wait": wait_ms, "perceive": model_ms})
            for (instances, maps), wait_ms in zip(found, waits_ms, strict=True)
        ]

    def _deliver(self, batch: Batch, findings: list[Finding]) -> None:
        """Track what was found in each stream and put the results, in the batch's order."""
        for done, ((stream, frame), finding) in enumerate(zip(batch, findings, strict=True)):
            try:
                result = self._track(stream, frame, *finding)
            except BaseException:
                self._lose(batch[done:])
                raise
            # One step under the guard: the counters add up at any moment, for any thread.
            with self._guard:
                stream.counters.leave("perceiving")
                stream.counters.enter("ready")
                self._put(batch[done + 1 :], stream, result)

    def _put(self, rest: Batch, stream: SourceStream, result: FrameResult) -> None:
        try:
            self.results.put((stream, result))
        except Aborted:
            self._lose(rest)
            raise

    def _track(
        self,
        stream: SourceStream,
        frame: Frame,
        instances: Instances,
        maps: Maps,
        timings: dict[str, float],
    ) -> FrameResult:
        start = time.monotonic()
        if stream.tracker is not None:
            with _named(f"tracker, on {_list([frame])},"), self._timed(self.tracking):
                instances = stream.tracker.update(instances, self._active, frame)
        timings["track"] = 1e3 * (time.monotonic() - start)
        return FrameResult(frame, instances, self._active, timings, maps)

    def _lose(self, batch: Batch) -> None:
        with self._guard:
            for stream, _ in batch:
                stream.counters.leave("perceiving")
                stream.counters.drop(self.results.abort_cause or FAILED)

    @contextmanager
    def _timed(self, meter: StageMeter) -> Iterator[None]:
        start = time.monotonic()
        yield
        with self._guard:
            meter.work.add(time.monotonic() - start)


def _too_late() -> PipelineError:
    return PipelineError("the run is over: it takes no more prompts")


def _lost(item: tuple[SourceStream, FrameResult], cause: str) -> None:
    stream, _ = item
    stream.counters.leave("ready")
    stream.counters.drop(cause)


def _one_each(
    frames: Sequence[Frame], found: list[tuple[Instances, Maps]]
) -> list[tuple[Instances, Maps]]:
    if len(found) != len(frames):
        raise ValueError(f"{len(found)} results for {len(frames)} frames")
    return found


def _list(frames: Sequence[Frame]) -> str:
    return ", ".join(f"{frame.stream} #{frame.index}" for frame in frames)


@contextmanager
def _named(stage: str) -> Iterator[None]:
    try:
        yield
    except Aborted:
        raise
    except Exception as error:
        raise PipelineError.of(stage, error) from error
