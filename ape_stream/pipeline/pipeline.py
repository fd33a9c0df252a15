"""The run: sources -> model -> sinks, with its threads, order, shutdown and failures.

    source threads -> [channel each] -> model thread -> [channel] -> the caller's thread: sinks

Frames of a file are all processed (a full channel makes the source wait); of a live source only
the newest waits (older ones are dropped and counted). The caller's `for` loop drives the sinks.
The first stage that fails is named and the rest is aborted; whatever was written stays.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Literal, Self, get_args

from ape_stream import signals
from ape_stream.channel import Aborted, Ended
from ape_stream.errors import (
    ApeStreamError,
    ConfigError,
    PipelineError,
    StoppedError,
    TruncatedError,
    UsageError,
)
from ape_stream.pipeline.inference_thread import FAILED, ModelThread
from ape_stream.pipeline.resources import Resources
from ape_stream.pipeline.stream import Port
from ape_stream.protocols import WatchesRun
from ape_stream.stats import RunStats, StageMeter, resident_bytes
from ape_stream.types import PromptSet
from ape_stream.values.prompts import check_threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from ape_stream.protocols import Perceiver, Sink, Source, Tracker
    from ape_stream.types import FrameResult, Prompt

__all__ = ["Outcome", "Pipeline", "Policy"]

Policy = Literal["auto", "every", "newest"]
"""What happens to a frame that the model has no time for: `every` frame waits its turn, only the
`newest` does, or `auto`: newest for live sources, every for the others."""

Outcome = Literal["running", "finished", "truncated", "stopped", "failed"]
"""How a run stands; `truncated`: finished, but a source broke off before its own end."""

STOPPED = "stopped"
"""Cause of a drop: the run was stopped."""

_RELEASE_S = 0.5
_JOIN_S = 2.0
_log = logging.getLogger("ape_stream")


class Pipeline:
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

    Raises:
        ConfigError: no source, or two of one name, or an unknown policy.
        PromptError: the threshold is outside 0..1.
    """

    def __init__(
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
    ) -> None:
        _check(sources, policy)
        if threshold is not None:
            check_threshold(threshold)
        self._guard = threading.Condition()
        self._ports = [
            Port(
                source,
                tracker() if tracker is not None else None,
                newest_wins=None if policy == "auto" else policy == "newest",
                buffer=buffer,
                guard=self._guard,
            )
            for source in sources
        ]
        self._model = ModelThread(perceiver, self._ports, prompts, threshold, self._guard)
        self._sinks = tuple(sinks)
        self._resources = Resources()
        self._publishing = StageMeter()
        self._threads: dict[threading.Thread, Port | None] = {}
        self._started_s: float | None = None
        self._ended_s: float | None = None
        self._outcome: Outcome = "running"
        self._failure: PipelineError | None = None
        self._truncated: list[TruncatedError] = []
        self._read_to_end: set[str] = set()
        self._entered = False
        self._iterated = False
        self._closed = False

    # -- while it runs, from any thread ---------------------------------------------------

    @property
    def prompts(self) -> PromptSet:
        """The prompts of the next frame, with thresholds filled in."""
        return self._model.in_force

    @property
    def outcome(self) -> Outcome:
        """How the run stands."""
        with self._guard:
            return self._outcome

    @property
    def truncated(self) -> tuple[TruncatedError, ...]:
        """Why sources broke off early; each says how much was read."""
        with self._guard:
            return tuple(self._truncated)

    @property
    def frame_count(self) -> int | None:
        """How many frames all sources together will deliver; None where nobody can know."""
        counts = [port.source.frame_count for port in self._ports]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def set_prompts(
        self, prompts: str | Iterable[str | Prompt] | PromptSet, timeout_s: float | None = None
    ) -> PromptSet:
        """Look for something else from the next frame on; no frame is lost.

        Only texts that are new to the model are encoded. It is all or nothing: a refusal leaves
        the old prompts in force. Returns what is in force, once it is.

        Raises:
            PromptError: a prompt cannot be used; the message says why.
            PipelineError: the run is over.
            TimeoutError: not in force after `timeout_s`; it still may come to be.
        """
        wanted = prompts if isinstance(prompts, PromptSet) else PromptSet.of(prompts)
        return self._model.ask(prompts=wanted).result(timeout_s)

    def set_threshold(self, threshold: float, timeout_s: float | None = None) -> PromptSet:
        """Change the score (0..1) for prompts without one of their own, from the next frame on.

        Raises:
            PromptError: the threshold is outside 0..1.
            PipelineError: the run is over.
            TimeoutError: not in force after `timeout_s`; it still may come to be.
        """
        check_threshold(threshold)
        return self._model.ask(threshold=threshold).result(timeout_s)

    def stop(self) -> None:
        """End the run: the loop over results ends at once, frames underway count as dropped."""
        self._abort(STOPPED, "stopped")

    def stats(self) -> RunStats:
        """What the run did so far; all numbers are of one moment."""
        device_memory = self._model.device_memory()
        with self._guard:
            return RunStats(
                elapsed_s=self._elapsed_s(),
                streams={p.name: p.ledger.snapshot(len(p.channel)) for p in self._ports},
                stages={name: meter.snapshot() for name, meter in self._meters().items()},
                resident_bytes=resident_bytes(),
                device_memory=device_memory,
            )

    def _elapsed_s(self) -> float:
        if self._started_s is None:
            return 0.0
        return (self._ended_s or time.monotonic()) - self._started_s

    def _clock_out(self) -> None:
        with self._guard:
            self._ended_s = self._ended_s or time.monotonic()

    def _meters(self) -> dict[str, StageMeter]:
        for port in self._ports:
            port.reading.blocked_s = port.channel.put_wait_s
        self._publishing.starved_s = self._model.results.get_wait_s
        return {
            **{f"source {port.name}": port.reading for port in self._ports},
            "prepare": self._model.preparing,
            "perceive": self._model.perceiving,
            "track": self._model.tracking,
            "publish": self._publishing,
        }

    # -- life -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Prepare the prompts, then open sources and sinks: what cannot work fails here."""
        if self._entered:
            raise UsageError("a pipeline runs once: make another one")
        self._entered = True
        try:
            self._start("model", self._model.run, None)
            self._model.ask().result()
            self._resources.enter("source", [(port.name, port.source) for port in self._ports])
            for port in self._ports:
                port.settle()
            for sink in self._sinks:
                if isinstance(sink, WatchesRun):
                    sink.watch(self.stats)
            self._resources.enter("sink", [(_sink_name(sink), sink) for sink in self._sinks])
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop what still runs and close all sources and sinks, whatever happens to one.

        Sinks are told why results are missing: the error underway, `TruncatedError` where a source
        broke off, `StoppedError` after `stop`. A live stream has no end that could be missed, so
        stopping it is no error to them; nor is leaving the loop early, the caller's own choice.
        Signals wait until all is closed.

        Raises:
            PipelineError: an output could not be closed well (unless an error is underway).
        """
        with signals.deferred():
            problems = self._close(error)
        for problem in problems if error is not None else problems[1:]:
            _log.warning("%s", problem)
        if problems and error is None:
            raise problems[0]

    def _close(self, error: BaseException | None) -> list[PipelineError]:
        self._closed = True
        stopped = self.outcome == "stopped"
        self._abort(STOPPED, "stopped")
        self._join()
        told = error
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            told = error if self._unread() else None
        elif error is None or isinstance(error, GeneratorExit):
            told = self._incomplete(stopped=stopped)
        trace = None if told is None else told.__traceback__
        problems = self._resources.leave(None if told is None else type(told), told, trace)
        self._clock_out()
        return problems

    def _incomplete(self, *, stopped: bool) -> ApeStreamError | None:
        """Why results are missing where no error is underway, or None where none are."""
        if self.truncated:
            return self.truncated[0]
        if stopped and self._unread():
            return StoppedError(f"stopped before the end of {', '.join(self._unread())}")
        return None

    def _unread(self) -> list[str]:
        """The streams that have an end which the results do not reach."""
        with self._guard:
            return [
                port.name
                for port in self._ports
                if not port.source.live
                and (port.name not in self._read_to_end or port.ledger.dropped.get(STOPPED))
            ]

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

    def _run(self) -> Iterator[FrameResult]:
        self._started_s = time.monotonic()
        for port in self._ports:
            self._start(f"source {port.name}", port.ingest, port)
        try:
            while True:
                yield self._publish(*self._next())
        except Ended:
            self._finish()
        except Aborted:
            if self._failure is not None:
                raise self._failure from self._failure.__cause__
        except PipelineError as error:
            self._fail(error)
            raise

    def _next(self) -> tuple[Port, FrameResult]:
        with self._guard:
            port, result = self._model.results.get()
            port.ledger.leave("ready")
            port.ledger.enter("publishing")
            return port, result

    def _publish(self, port: Port, result: FrameResult) -> FrameResult:
        start = time.monotonic()
        try:
            for sink in self._sinks:
                self._write(sink, result)
        except BaseException as error:
            with self._guard:
                port.ledger.leave("publishing")
                port.ledger.drop(FAILED if isinstance(error, PipelineError) else STOPPED)
            raise
        with self._guard:
            port.ledger.leave("publishing")
            port.ledger.publish(result.frame.captured_ns)
            self._publishing.work.add(time.monotonic() - start)
        return result

    def _write(self, sink: Sink, result: FrameResult) -> None:
        try:
            sink.write(result)
        except Exception as error:
            where = f"sink {_sink_name(sink)}, on {result.frame.stream} #{result.frame.index},"
            raise PipelineError.of(where, error) from error

    def _finish(self) -> None:
        self._clock_out()
        with self._guard:
            self._outcome = "truncated" if self._truncated else "finished"
        for error in self.truncated:
            _log.warning("%s", error)

    # -- threads --------------------------------------------------------------------------

    def _start(self, name: str, work: Callable[[], None], port: Port | None) -> None:
        thread = threading.Thread(
            target=self._guarded, args=(name, work, port), name=f"ape_stream {name}", daemon=True
        )
        self._threads[thread] = port
        thread.start()

    def _guarded(self, name: str, work: Callable[[], None], port: Port | None) -> None:
        """Run a stage; its end and its failure reach the others on every way out."""
        try:
            work()
            if port is not None:
                self._read_to_end.add(port.name)
        except Aborted:
            pass
        except TruncatedError as error:
            with self._guard:
                self._truncated.append(error)
        except PipelineError as error:
            self._fail(error)
        except BaseException as error:  # noqa: BLE001 (a thread has nobody above to raise to)
            self._fail(PipelineError.of(name, error))
        finally:
            if port is not None:
                port.channel.end()
            else:
                self._model.refuse_wishes()

    def _fail(self, error: PipelineError) -> None:
        with self._guard:
            if self._failure is None and self._outcome == "running":
                self._failure = error
            self._abort(FAILED, "failed")

    def _abort(self, cause: str, outcome: Outcome) -> None:
        with self._guard:
            if self._outcome == "running":
                self._outcome = outcome
            for port in self._ports:
                port.channel.abort(cause)
            self._model.results.abort(cause)
            self._model.refuse_wishes()

    def _join(self) -> None:
        """Wait for every thread, with an end; release the source of one that does not come."""
        if not self._join_all(_RELEASE_S):
            stuck = [port for thread, port in self._threads.items() if thread.is_alive()]
            self._resources.release([port.source for port in stuck if port is not None])
            self._join_all(_JOIN_S)
        for thread in self._threads:
            if thread.is_alive():
                _log.warning(
                    "%s did not end within %.1f s and was left behind",
                    thread.name.removeprefix("ape_stream "),
                    _RELEASE_S + _JOIN_S,
                )

    def _join_all(self, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)


def _check(sources: Sequence[Source], policy: str) -> None:
    if not sources:
        raise ConfigError("no source given: name a file, a device or a URL")
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two sources are called {name!r}: give each its own name")
    if policy not in get_args(Policy):
        raise ConfigError(f"policy {policy!r} is none of {', '.join(get_args(Policy))}")


def _sink_name(sink: Sink) -> str:
    return str(getattr(sink, "name", None) or type(sink).__name__)
