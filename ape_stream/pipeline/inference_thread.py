"""The one thread that talks to the model: it perceives, tracks, and takes new prompts.

It takes frames only when their results will have room, so what it works on is as new as can be,
and a slow sink makes a live run drop frames before the model, not after it.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ape_stream.channel import Aborted, Channel
from ape_stream.errors import ApeStreamError, PipelineError, PromptError
from ape_stream.protocols import TellsMemory
from ape_stream.stats import StageMeter
from ape_stream.types import FrameResult

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    from ape_stream.pipeline.stream import Port
    from ape_stream.protocols import Perceiver
    from ape_stream.stats import DeviceMemory
    from ape_stream.types import Frame, Instances, PromptSet

__all__ = ["FAILED", "ModelThread"]

Batch = list[tuple["Port", "Frame"]]
"""At most one frame of every stream, for one call of the model."""

Finding = tuple["Instances", dict[str, float]]
"""What the model found in one frame, and milliseconds by stage so far."""

FAILED = "failed"
"""Cause of a drop: a stage failed."""


@dataclass(frozen=True, slots=True, eq=False)
class _Wish:
    """New prompts, a new threshold, or both; what is None stays as it is."""

    prompts: PromptSet | None
    threshold: float | None
    answer: Future[PromptSet]


class ModelThread:
    """The model's thread.

    Args:
        perceiver: The model.
        ports: The streams.
        prompts: What to look for first; nothing is prepared before the first `ask`.
        threshold: Score for prompts without one of their own, 0..1; None leaves it to the model.
        guard: The lock of the whole pipeline.
    """

    def __init__(
        self,
        perceiver: Perceiver,
        ports: Sequence[Port],
        prompts: PromptSet,
        threshold: float | None,
        guard: threading.Condition,
    ) -> None:
        # One batch waits for the sinks while the next is worked on.
        self.results: Channel[tuple[Port, FrameResult]] = Channel(
            2 * len(ports) - 1, guard=guard, on_drop=_lost
        )
        self.preparing = StageMeter()
        self.perceiving = StageMeter()
        self.tracking = StageMeter()
        self._perceiver = perceiver
        self._ports = ports
        self._guard = guard
        self._given = prompts
        self._threshold = threshold
        self._in_force = prompts.with_threshold(threshold)
        self._prepared = False
        self._wishes: list[_Wish] = []
        self._over = False

    # -- asked from other threads ---------------------------------------------------------

    def ask(
        self, prompts: PromptSet | None = None, threshold: float | None = None
    ) -> Future[PromptSet]:
        """Wish for prompts, a threshold or both; the answer holds what is in force then.

        Asking for neither prepares what the run was made with.
        """
        answer: Future[PromptSet] = Future()
        with self._guard:
            if self._over:
                answer.set_exception(PipelineError("the run is over: it takes no more prompts"))
            else:
                self._wishes.append(_Wish(prompts, threshold, answer))
                self._guard.notify_all()
        return answer

    def refuse_wishes(self) -> None:
        """Answer everybody who still waits: the run is over."""
        with self._guard:
            self._over = True
            for wish in self._wishes:
                wish.answer.set_exception(PipelineError("the run ended before the prompts changed"))
            self._wishes.clear()

    @property
    def in_force(self) -> PromptSet:
        """The prompts of the next frame, with thresholds filled in."""
        with self._guard:
            return self._in_force

    def device_memory(self) -> DeviceMemory | None:
        """Memory of the model's device, where the perceiver tells."""
        teller = self._perceiver
        return teller.device_memory() if isinstance(teller, TellsMemory) else None

    # -- the thread -----------------------------------------------------------------------

    def run(self) -> None:
        """Work until every stream has ended.

        Raises:
            Aborted: the run is over.
            PipelineError: the perceiver or a tracker failed.
        """
        while batch := self._next_batch():
            self._deliver(batch, self._perceive(batch))
        self.results.end()

    def _next_batch(self) -> Batch:
        """One frame of each stream that has one; empty once all have ended."""
        while True:
            with self._guard:
                self._wait_for_work()
                if self.results.abort_cause is not None:
                    raise Aborted
                if not self._wishes:
                    return self._take()
                wish = self._wishes[0]
            self._fulfil(wish)

    def _wait_for_work(self) -> None:
        start = time.monotonic()
        blocked = sum(port.channel.ready > 0 for port in self._ports) > self.results.room
        self._guard.wait_for(self._has_work)
        waited = time.monotonic() - start
        if blocked:
            self.perceiving.blocked_s += waited
        else:
            self.perceiving.starved_s += waited

    def _has_work(self) -> bool:
        ready = sum(port.channel.ready > 0 for port in self._ports)
        return bool(
            self._wishes
            or self.results.abort_cause is not None
            or 0 < ready <= self.results.room
            or all(port.channel.exhausted for port in self._ports)
        )

    def _take(self) -> Batch:
        batch = [(port, port.channel.get()) for port in self._ports if port.channel.ready]
        for port, _ in batch:
            port.ledger.enter("perceiving")
        return batch

    def _fulfil(self, wish: _Wish) -> None:
        """Prepare what was wished for, or leave all as it was and say why."""
        given = wish.prompts if wish.prompts is not None else self._given
        threshold = wish.threshold if wish.threshold is not None else self._threshold
        effective = given.with_threshold(threshold)
        try:
            with self._timed(self.preparing):
                self._perceiver.prepare(effective)
        except Exception as error:  # noqa: BLE001 (whatever it is goes to who wished)
            self._take_back()
            self._answer(wish, error)
            return
        with self._guard:
            self._given, self._threshold, self._in_force = given, threshold, effective
            self._prepared = True
        self._answer(wish, None)

    def _take_back(self) -> None:
        """A model may have kept half of a refused set: give it the old one again (all cached)."""
        if self._prepared:
            with _named("perceiver, taking back its old prompts,"):
                self._perceiver.prepare(self._in_force)

    def _answer(self, wish: _Wish, error: Exception | None) -> None:
        with self._guard:
            if wish not in self._wishes:  # refused meanwhile: the run is over
                return
            self._wishes.remove(wish)
        if error is None:
            wish.answer.set_result(self._in_force)
        elif isinstance(error, ApeStreamError):
            wish.answer.set_exception(error)
        else:
            reason = PromptError(f"the model refused the prompts: {type(error).__name__}: {error}")
            reason.__cause__ = error
            wish.answer.set_exception(reason)

    def _perceive(self, batch: Batch) -> list[Finding]:
        frames = [frame for _, frame in batch]
        start_ns = time.monotonic_ns()
        try:
            with _named(f"perceiver, on {_list(frames)},"), self._timed(self.perceiving):
                found = _one_each(frames, self._perceiver.perceive(frames))
        except BaseException:
            self._lose(batch)
            raise
        model_ms = (time.monotonic_ns() - start_ns) / 1e6
        waits_ms = [(start_ns - frame.captured_ns) / 1e6 for frame in frames]
        return [
            (instances, {"wait": wait_ms, "perceive": model_ms})
            for instances, wait_ms in zip(found, waits_ms, strict=True)
        ]

    def _deliver(self, batch: Batch, findings: list[Finding]) -> None:
        """Track each stream's finding and hand the results over, in the batch's order."""
        for done, ((port, frame), finding) in enumerate(zip(batch, findings, strict=True)):
            try:
                result = self._track(port, frame, *finding)
            except BaseException:
                self._lose(batch[done:])
                raise
            with self._guard:
                port.ledger.leave("perceiving")
                port.ledger.enter("ready")
                self._put(batch[done + 1 :], port, result)

    def _put(self, rest: Batch, port: Port, result: FrameResult) -> None:
        try:
            self.results.put((port, result))
        except Aborted:
            self._lose(rest)
            raise

    def _track(
        self, port: Port, frame: Frame, instances: Instances, timings: dict[str, float]
    ) -> FrameResult:
        start = time.monotonic()
        if port.tracker is not None:
            with _named(f"tracker, on {_list([frame])},"), self._timed(self.tracking):
                instances = port.track(frame, instances)
        timings["track"] = 1e3 * (time.monotonic() - start)
        return FrameResult(frame, instances, self._in_force, timings)

    def _lose(self, batch: Batch) -> None:
        with self._guard:
            for port, _ in batch:
                port.ledger.leave("perceiving")
                port.ledger.drop(self.results.abort_cause or FAILED)

    @contextmanager
    def _timed(self, meter: StageMeter) -> Iterator[None]:
        start = time.monotonic()
        yield
        with self._guard:
            meter.work.add(time.monotonic() - start)


def _lost(item: tuple[Port, FrameResult], cause: str) -> None:
    port, _ = item
    port.ledger.leave("ready")
    port.ledger.drop(cause)


def _one_each(frames: Sequence[Frame], found: list[Instances]) -> list[Instances]:
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
