"""The default engine: child processes of this machine, so that a decoder may crash or hang.

One child costs nothing in speed over a loop in this process: it reads, perceives and writes by
itself, and only a line of JSON for each frame goes between the two.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Protocol, Self

from ape_stream.batch.job import Event
from ape_stream.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ape_stream.batch.job import Setup, Task

__all__ = ["Pool", "ProcessPool"]

_END_S = 5.0
"""Seconds that a process has to end by itself; then it is killed."""


class Pool(Protocol):
    """Workers, each in a slot of its own; what they report goes to one callable."""

    slots: tuple[str, ...]
    """Their names."""

    def send(self, slot: str, task: Task) -> None:
        """Have an idle slot do a task; a worker that died is started again first."""
        ...

    def kill(self, slot: str) -> None:
        """End a worker at once; "died" is reported for its task."""
        ...

    def __enter__(self) -> Self:
        """Take part in a `with` block."""
        ...

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End all workers."""
        ...


class ProcessPool(Closing):
    """Child processes.

    Args:
        slots: Names of the workers.
        setup: What they are started with.
        post: Called from threads with every event.
    """

    def __init__(self, slots: tuple[str, ...], setup: Setup, post: Callable[[Event], None]) -> None:
        self.slots = slots
        self._setup = setup
        self._post = post
        self._children: dict[str, _Child] = {}

    def send(self, slot: str, task: Task) -> None:
        """See `Pool`."""
        child = self._children.get(slot)
        if child is None or not child.send(task):
            self._children[slot] = _Child(slot, self._setup, task, self._post)

    def kill(self, slot: str) -> None:
        """See `Pool`."""
        if slot in self._children:
            self._children.pop(slot).kill()

    def close(self, _: BaseException | None = None, /) -> None:
        """See `Pool`."""
        for child in self._children.values():
            child.end()
        for child in self._children.values():
            child.join()
        self._children.clear()


class _Child:
    """One process, with a task from its start on: its death is always that of a task."""

    def __init__(self, slot: str, setup: Setup, task: Task, post: Callable[[Event], None]) -> None:
        self._slot = slot
        self._post = post
        self._task = task.number
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `_watch`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ape_stream.batch.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            env={**os.environ, **_found_modules()},
            # Ctrl-C is for the run alone, which then ends its workers.
            start_new_session=True,
        )
        # Where it is gone already, the watcher reports that.
        self._write(setup.to_json())
        self._write(task.to_json())
        self._watcher = threading.Thread(target=self._watch, name=f"worker {slot}", daemon=True)
        self._watcher.start()

    def _write(self, value: object) -> bool:
        """Send a line; False where the process is gone."""
        assert self._process.stdin is not None  # noqa: S101 (for the type checker)
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            return False
        return self._process.poll() is None

    def send(self, task: Task) -> bool:
        """Give it its next task; False where the process is gone."""
        before, self._task = self._task, task.number
        if self._write(task.to_json()):
            return True
        self._task = before
        return False

    def _watch(self) -> None:
        """Post its events; at its end, post that it died."""
        assert self._process.stdout is not None  # noqa: S101 (for the type checker)
        with self._process.stdout as lines:
            for line in lines:
                with suppress(ValueError):  # a line that a kill cut off
                    self._post(Event(self._slot, **json.loads(line)))
        code = self._process.wait()
        self.end()  # closes the pipe to it
        self._post(Event(self._slot, self._task, "died", (_reason(code), self._last_words())))

    def _last_words(self) -> str:
        """The last line that it wrote on standard error."""
        with self._errors as errors:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
            lines = errors.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Let it end at once: what it is writing has a temporary name."""
        assert self._process.stdin is not None  # noqa: S101 (for the type checker)
        with suppress(OSError):
            self._process.stdin.close()

    def join(self) -> None:
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._watcher.join(_END_S)


def _found_modules() -> dict[str, str]:
    """Has a child find the modules that this process finds."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _reason(code: int) -> str:
    """Why a worker ended, from its exit code."""
    if code >= 0:
        return f"its worker ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"its worker was killed by {name}"
