"""What does the work of a run: how many workers, under which engine, and the first question to one.

Workers report through one queue, whichever pool they are in.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from queue import Empty
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from ape_stream.batch.job import Event, Task
from ape_stream.batch.processes import ProcessPool
from ape_stream.errors import ConfigError, PipelineError, StoppedError

if TYPE_CHECKING:
    import threading
    from queue import Queue

    from ape_stream.batch.job import Setup
    from ape_stream.batch.processes import Pool

__all__ = ["EARLY_DEATHS", "LAST", "Engine", "EngineKind", "identify"]

EARLY_DEATHS: Final = 10
"""Workers that may die in a row before they have begun."""
LAST: Final = frozenset(("done", "failed", "refused", "fatal", "died"))
"""Events that end a task."""
_WAIT_S: Final = 0.2
"""How long a wait for an event goes on before it looks whether the run was stopped."""

EngineKind = Literal["processes", "ray"]
"""Child processes of this machine, or actors of Ray."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What does the work.

    Raises:
        ConfigError: there is no such engine.
    """

    jobs: int = 1
    """Workers with a model."""
    stall_s: float = 300.0
    """Seconds without a sign of life after which a worker is ended."""
    kind: EngineKind = "processes"
    """Where the workers are."""
    address: str | None = None
    """Of a running Ray cluster; None starts one here."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(EngineKind):
            raise ConfigError(f"--engine is processes or ray, not {self.kind!r}")

    def pool(self, name: str, setup: Setup, events: Queue[Event]) -> Pool:
        """A pool of the workers with a model.

        Args:
            name: What its slots are called, before their number.
            setup: What they are started with.
            events: Gets what they report.

        Raises:
            PluginError: Ray is not installed.
            PipelineError: its cluster does not answer.
        """
        slots = tuple(f"{name} {k}" for k in range(1, self.jobs + 1))
        if self.kind == "processes":
            return ProcessPool(slots, setup, events.put)
        from ape_stream.batch.ray_pool import RayPool  # noqa: PLC0415 (an extra)

        return RayPool(slots, setup, events.put, address=self.address)


def identify(pool: Pool, events: Queue[Event], stop: threading.Event) -> dict[str, Any]:
    """Ask a worker what the results depend on; see `Job.identity`.

    Args:
        pool: It has no task yet.
        events: What its workers report.
        stop: Ends the wait when it is set.

    Raises:
        StoppedError: it was stopped.
        ApeStreamError: the worker cannot say.
    """
    # A worker may be killed here as well. The numbers are below those of any `Schedule`, which
    # begin at 1: what such a worker reports late is not taken for the event of a later task.
    for number in range(-EARLY_DEATHS, 0):
        pool.send(pool.slots[0], Task(number, "identify"))
        event = _last_event(number, events, stop)
        if event.kind == "done":
            answer: dict[str, Any] = event.value
            return answer
        if event.kind != "died":
            raise event.error()
    raise PipelineError(f"the model cannot be made: {' '.join(event.value)}")


def _last_event(number: int, events: Queue[Event], stop: threading.Event) -> Event:
    while True:
        if stop.is_set():
            raise StoppedError("stopped")
        with suppress(Empty):
            event = events.get(timeout=_WAIT_S)
            if event.task == number and event.kind in LAST:
                return event
