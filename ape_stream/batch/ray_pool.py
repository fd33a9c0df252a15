"""The engine for several machines: actors of Ray, one worker each.

Ray only places the workers and carries their events. Retries are ours and bounded, files are read
and written by the workers themselves: the folders of the sources and outputs must be the same on
every machine of the cluster.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from ape_stream.batch.job import Event, Setup, Task
from ape_stream.batch.memory import limit_fragmentation
from ape_stream.batch.worker import Worker
from ape_stream.closing import Closing
from ape_stream.errors import PipelineError
from ape_stream.optional import library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["RayPool"]

_LOCAL_STARTS: Final = 3
"""Attempts to start a cluster on this machine."""
_log = logging.getLogger("ape_stream")


class RayPool(Closing):
    """Actors of Ray; see `Pool`.

    Args:
        slots: Names of the workers.
        setup: What they are started with.
        post: Called from threads with every event.
        address: Of a running cluster; None starts one on this machine.

    Raises:
        PluginError: Ray is not installed.
        PipelineError: the cluster does not answer.
    """

    def __init__(
        self,
        slots: tuple[str, ...],
        setup: Setup,
        post: Callable[[Event], None],
        *,
        address: str | None = None,
    ) -> None:
        self.slots = slots
        self._setup = setup
        self._post = post
        self._ray: Any = library("ray", "ray")
        self._start(address)
        gpus = self._ray.cluster_resources().get("GPU", 0)
        # No restarts and no retries of Ray's own, which know no end: a clip that kills its worker
        # is counted, and put aside.
        self._actor = self._ray.remote(
            num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=0, max_task_retries=0
        )(_Actor)
        self._actors: dict[str, Any] = {}

    def _start(self, address: str | None) -> None:
        # Ray's own processes must be up within seconds (its raylet waits 15 s for its agents, and
        # then aborts): on a busy machine only the second start, from the file cache, is in time.
        starts = _LOCAL_STARTS if address is None else 1
        for start in range(1, starts + 1):
            try:
                self._ray.init(address=address, include_dashboard=False, log_to_driver=False)
            except Exception as error:
                self._ray.shutdown()
                if start == starts:
                    raise PipelineError.of("ray", error) from error
                _log.warning(
                    "Ray did not start (%d of %d): %s", start, starts, " ".join(str(error).split())
                )
            else:
                return

    def send(self, slot: str, task: Task) -> None:
        """See `Pool`."""
        if slot not in self._actors:
            self._actors[slot] = self._actor.remote(self._setup.to_json(), sys.path)
        follow = threading.Thread(
            target=self._follow, args=(slot, self._actors[slot], task), daemon=True
        )
        follow.start()

    def _follow(self, slot: str, actor: Any, task: Task) -> None:
        """Post the events of a task."""
        try:
            # Once it has begun, its death counts against the clip; the events of an actor that dies
            # at once do not all arrive.
            self._ray.get(actor.ready.remote())
            self._post(Event(slot, task.number, "started"))
            # One object for each event, as it comes.
            events = actor.run.options(num_returns="streaming").remote(task.to_json())
            for reference in events:
                self._post(Event(slot, task.number, **self._ray.get(reference)))
        except Exception as error:  # noqa: BLE001 (however it ended, the task is not done)
            if self._actors.get(slot) is actor:
                del self._actors[slot]
            name = type(error).__name__
            self._post(Event(slot, task.number, "died", (f"its worker ended ({name})", "")))

    def kill(self, slot: str) -> None:
        """See `Pool`."""
        if (actor := self._actors.pop(slot, None)) is not None:
            self._ray.kill(actor)

    def close(self, _: BaseException | None = None, /) -> None:
        """See `Pool`."""
        for actor in self._actors.values():
            with suppress(Exception):
                self._ray.kill(actor)
        self._actors.clear()
        self._ray.shutdown()


class _Actor:
    """A worker inside of an actor.

    Args:
        setup: What it is started with, as JSON values.
        path: Where modules are found by the process that started the run.
    """

    def __init__(self, setup: dict[str, Any], path: list[str]) -> None:
        limit_fragmentation()
        sys.path += [entry for entry in path if entry not in sys.path]
        self._worker = Worker(Setup.from_json(setup))

    def ready(self) -> None:
        """Return once the worker is made."""

    def run(self, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Do a task; yields its events."""
        events: SimpleQueue[dict[str, Any]] = SimpleQueue()

        def emit(kind: str, value: Any = None, *, retry: bool = False) -> None:
            events.put({"kind": kind, "value": value, "retry": retry})

        # A thread, because a worker reports by a call and Ray wants a generator.
        given = (Task.from_json(task), emit)
        threading.Thread(target=self._worker.run, args=given, daemon=True).start()
        while True:
            event = events.get()
            yield event
            if event["kind"] in {"done", "failed", "refused", "fatal"}:
                return
