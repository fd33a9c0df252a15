"""The run: sources -> model -> sinks, with its order, shutdown and failures.

    source threads -> [channel each] -> model thread -> [channel] -> the caller's thread: sinks

Frames of a file are all processed (a full channel makes the source wait); of a live source only
the newest waits (older ones are dropped and counted). The caller's `for` loop drives the sinks.
The first stage that fails is named and the rest is aborted; what was written stays.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

from ape_stream import signals
from ape_stream.channel import Aborted, Ended
from ape_stream.closing import Closing
from ape_stream.errors import (
    ConfigError,
    PipelineError,
    TruncatedError,
    UsageError,
)
from ape_stream.pipeline.asynchronous import results_of
from ape_stream.pipeline.attach import attach
from ape_stream.pipeline.inference_thread import InferenceThread
from ape_stream.pipeline.maps import MapRequest
from ape_stream.pipeline.publisher import Publisher, sink_name
from ape_stream.pipeline.resources import Resources
from ape_stream.pipeline.run_state import FAILED, STOPPED, Outcome, RunState
from ape_stream.pipeline.stream import SourceStream, check_names
from ape_stream.pipeline.threads import Threads
from ape_stream.pipeline.tracking import StreamTracker
from ape_stream.protocols import KnowsFrameCount
from ape_stream.stats import RunStats, StageMeter, resident_bytes
from ape_stream.types import PromptSet
from ape_stream.values.prompts import check_threshold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from typing import Self

    from ape_stream.protocols import NeedsMaps, Perceiver, Sink, Source, Tracker
    from ape_stream.types import FrameResult, MapKind, Prompt

__all__ = ["Outcome", "Pipeline", "Policy"]

Policy = Literal["auto", "every", "newest"]
"""What happens to a frame that the model has no time for: `every` frame waits its turn, only the
`newest` does, or `auto`: newest for live sources, every for the others."""

_log = logging.getLogger("ape_stream")


class Pipeline(Closing):
    """One run from sources to sinks: a context manager that is iterated once.

        with Pipeline([source], perceiver, PromptSet.of("red apple")) as run:
            for result in run:
                ...

    Args:
        sources: At least one; their names differ.
        perceiver: The model.
        prompts: What to look for.
        tracker: Makes a tracker for each stream; None gives no track ids.
        sinks: Each gets every result, in this order, in the caller's thread.
        threshold: Score for prompts without one of their own, 0..1; None leaves it to the model.
        policy: See `Policy`.
        buffer: Frames per stream that may wait for the model where none is dropped.
        maps: What every result has, `semantic` or `panoptic`, or a `NeedsMaps` that says it for
            the next frames. Sinks that need one get it without.

    Raises:
        ConfigError: no source, or two of one name, an unknown policy or map.
        PromptError: the threshold is outside 0..1.
    """

    def __init__(  # noqa: PLR0913 (all that a run is made of)
        self,
        sources: Sequence[Source],
        perceiver: Perceiver,
        prompts: PromptSet,
        *,
        tracker: Callable[[], Tracker] | None = None,
        sinks: Sequence[Sink] = (),
        threshold: float | None = None,
        policy: Policy = "auto",
        buffer: int = 4,
        maps: Iterable[MapKind] | NeedsMaps = (),
    ) -> None:
        _check(sources, policy)
        if threshold is not None:
            check_threshold(threshold)
        self._guard = threading.Condition()  # of all channels and counts; reentrant
        self._streams = [
            SourceStream(
                source,
                StreamTracker(tracker) if tracker is not None else None,
                newest_wins=None if policy == "auto" else policy == "newest",
                buffer=buffer,
                guard=self._guard,
            )
            for source in sources
        ]
        self._sinks = tuple(sinks)
        model = MapRequest(perceiver, maps, self._sinks)
        self._model = InferenceThread(model, self._streams, prompts, threshold, self._guard)
        self._publisher = Publisher(self._model.results, self._sinks, self._guard)
        self._resources = Resources()
        self._threads = Threads()
        self._state = RunState()
        self._entered = False
        self._iterated = False
        self._closed = False

    # -- while it runs, from any thread ---------------------------------------------------

    @property
    def prompts(self) -> PromptSet:
        """The prompts of the next frame, with thresholds filled in."""
        return self._model.active_prompts

    @property
    def outcome(self) -> Outcome:
        """How the run stands."""
        with self._guard:
            return self._state.outcome

    @property
    def truncated(self) -> tuple[TruncatedError, ...]:
        """Why sources broke off early; each says how much was read."""
        with self._guard:
            return tuple(self._state.truncated)

    @property
    def live_streams(self) -> list[str]:
        """Names of the streams whose time does not wait."""
        return [stream.name for stream in self._streams if stream.source.live]

    @property
    def paints_maps(self) -> bool:
        """Whether the model can make maps of every pixel; see `PaintsMaps`."""
        return self._model.paints_maps

    @property
    def frame_count(self) -> int | None:
        """How many frames all sources together will deliver; None where this is not known."""
        sources = [stream.source for stream in self._streams]
        counts = [s.frame_count if isinstance(s, KnowsFrameCount) else None for s in sources]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def set_prompts(
        self, prompts: str | Iterable[str | Prompt] | PromptSet, timeout_s: float | None = None
    ) -> PromptSet:
        """Look for something else from the next frame on; no frame is lost.

        Only texts that are new to the model are encoded. It is all or nothing: a refusal leaves
        the old prompts active. Tracks go on under every prompt that stays, in any order, with its
        text and kind. Returns the active prompts, once they are. Before the run is entered they
        take the place of those that it was made with, and the model judges them when it is.

        Raises:
            PromptError: a prompt cannot be used; the message says why.
            PipelineError: the run is over.
            TimeoutError: not active after `timeout_s`; they may still become so.
        """
        wanted = prompts if isinstance(prompts, PromptSet) else PromptSet.of(prompts)
        return self._model.request(prompts=wanted).result(timeout_s)

    def set_threshold(self, threshold: float, timeout_s: float | None = None) -> PromptSet:
        """Change the score (0..1) for prompts without one of their own, from the next frame on.

        Raises:
            PromptError: the threshold is outside 0..1.
            PipelineError: the run is over.
            TimeoutError: not active after `timeout_s`; it may still become so.
        """
        check_threshold(threshold)
        return self._model.request(threshold=threshold).result(timeout_s)

    def stop(self) -> None:
        """End the run: the loop over results ends at once, frames in flight count as dropped."""
        self._abort(STOPPED, "stopped")

    def stats(self) -> RunStats:
        """What the run did so far; all numbers are of one moment."""
        device_memory = self._model.device_memory()  # may ask the driver: not under the guard
        with self._guard:
            return RunStats(
                elapsed_s=self._state.elapsed_s,
                streams={s.name: s.counters.snapshot(len(s.channel)) for s in self._streams},
                stages={name: meter.snapshot() for name, meter in self._meters().items()},
                resident_bytes=resident_bytes(),
                device_memory=device_memory,
            )

    def _meters(self) -> dict[str, StageMeter]:
        for stream in self._streams:
            stream.reading.blocked_s = stream.channel.put_wait_s
        self._publisher.meter.starved_s = self._model.results.get_wait_s
        return {
            **{f"source {stream.name}": stream.reading for stream in self._streams},
            "prepare": self._model.preparing,
            "perceive": self._model.perceiving,
            "track": self._model.tracking,
            "publish": self._publisher.meter,
        }

    # -- life -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Prepare the prompts, then open sources and sinks: what cannot work fails here."""
        if self._entered:
            raise UsageError("a pipeline runs once: make another one")
        self._entered = True
        try:
            # Prompts first: for a typing error no camera is opened and no file made. In the model's
            # thread, because a perceiver is called from one thread only.
            self._threads.start("model", self._run_model, None)
            if not self._prepared():
                return self
            self._resources.enter("source", [(s.name, s.source) for s in self._streams])
            for stream in self._streams:
                stream.settle()  # an open source knows if it is live
            attach(self._sinks, self, self._streams)
            self._resources.enter("sink", [(sink_name(sink), sink) for sink in self._sinks])
        except BaseException as error:
            self.close(error)
            raise
        return self

    def _prepared(self) -> bool:
        """Prepare the prompts; False where the run was stopped meanwhile, and nothing is opened."""
        try:
            self._model.request().result()
        except PipelineError:
            if self.outcome != "stopped":
                raise
            return False
        return True

    def close(self, error: BaseException | None = None) -> None:
        """Stop what still runs and close all sources and sinks, even if one of them fails.

        Sinks are given the reason for missing results: `error`, `TruncatedError` where a source
        broke off, `StoppedError` after `stop`. A live stream has no end that could be missed, so
        stopping it is no error to them; nor is leaving the loop early, the caller's own choice.
        Signals wait until all is closed.

        Raises:
            PipelineError: an output could not be closed well (unless there is an `error`).
        """
        with signals.deferred():
            problems = self._close(error)
        for problem in problems if error is not None else problems[1:]:  # the first is raised
            _log.warning("%s", problem)
        if problems and error is None:
            raise problems[0]

    def _close(self, error: BaseException | None) -> list[PipelineError]:
        self._closed = True
        # The outcome is read first: the abort below sets it, too. Threads end before sources and
        # sinks are closed, so that no thread uses what is closed.
        stopped = self.outcome == "stopped"
        self._abort(STOPPED, "stopped")
        self._threads.join(self._release)
        with self._guard:
            reason = self._state.missing(self._streams, error, stopped=stopped)
        problems = self._resources.leave(reason)
        with self._guard:
            self._state.stop_clock()
        return problems

    def _release(self, streams: list[SourceStream]) -> None:
        self._resources.release([stream.source for stream in streams])

    def __iter__(self) -> Iterator[FrameResult]:
        """Every result, after it went through all sinks; opens and closes the run if need be.

        Raises:
            PipelineError: a stage failed; `__cause__` is its own error.
        """
        if self._iterated or self._closed:
            raise UsageError("a pipeline runs once: make another one")
        self._iterated = True
        if self._entered:
            yield from self._run()
        else:
            with self:
                yield from self._run()

    def __aiter__(self) -> AsyncIterator[FrameResult]:
        """The same for `async for`: the event loop is not blocked. See `__iter__`."""
        return results_of(iter(self), self.stop)

    def __repr__(self) -> str:
        streams = ", ".join(stream.name for stream in self._streams)
        return f"Pipeline({streams}: {self.prompts}; {self.outcome})"

    def _run(self) -> Iterator[FrameResult]:
        if self.outcome == "stopped":  # before it began: sources may not be open
            return
        self._state.start_clock()
        for stream in self._streams:
            self._threads.start(f"source {stream.name}", partial(self._read, stream), stream)
        try:
            while True:
                yield self._publisher.publish_next()
        except Ended:
            self._finish()
        except Aborted:
            # Without a failure the run was stopped: the loop over results just ends.
            failure = self._state.failure
            if failure is not None:
                raise failure from failure.__cause__  # `from`: keep the stage's own error
        except PipelineError as error:
            self._fail(error)
            raise

    def _finish(self) -> None:
        with self._guard:
            self._state.stop_clock()
            self._state.finish()
        for error in self.truncated:
            _log.warning("%s", error)

    # -- what runs in threads: its end and its failure reach the others on every way out ----

    def _read(self, stream: SourceStream) -> None:
        try:
            self._guarded(f"source {stream.name}", stream.ingest, stream)
        finally:
            stream.channel.end()  # the model takes what waits, then sees the end

    def _run_model(self) -> None:
        try:
            self._guarded("model", self._model.run, None)
        finally:
            self._model.cancel_pending()

    def _guarded(self, name: str, work: Callable[[], None], stream: SourceStream | None) -> None:
        try:
            work()
            # Reached only if the source ended by itself, not by an abort.
            if stream is not None:
                with self._guard:
                    self._state.read_to_end.add(stream.name)
        except Aborted:
            pass
        except TruncatedError as error:
            with self._guard:
                self._state.truncated.append(error)
        except PipelineError as error:
            self._fail(error)
        except BaseException as error:  # noqa: BLE001 (a thread has no caller to raise to)
            self._fail(PipelineError.of(name, error))

    def _fail(self, error: PipelineError) -> None:
        with self._guard:
            self._state.fail(error)
            self._abort(FAILED, "failed")

    def _abort(self, cause: str, outcome: Outcome) -> None:
        with self._guard:
            self._state.end(outcome)  # nothing happens where the run had ended before
            for stream in self._streams:
                stream.channel.abort(cause)
            self._model.results.abort(cause)
            self._model.cancel_pending()


def _check(sources: Sequence[Source], policy: str) -> None:
    check_names(sources)
    if policy not in get_args(Policy):
        raise ConfigError(f"policy {policy!r} is none of {', '.join(get_args(Policy))}")
