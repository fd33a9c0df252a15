"""Ending a process by a signal without losing what it is writing.

SIGINT, SIGTERM and SIGHUP ask for the end. They often come twice: `timeout` and supervisors signal
a process and its group. A second exception raised while outputs are being closed would leave them
cut off, and an interpreter that ends with native threads still at work aborts. So only the first
signal acts, further ones are counted, and the third kills, for a process that does not end.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["Ending", "deferred", "on_first_signal", "polite_end"]

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
_SIGNALS = tuple(signal.Signals[name] for name in _NAMES if hasattr(signal, name))
_KILLS_AT = 3
"""The third signal ends the process at once."""
_OVER = 0  # no signal has this number
_JOIN_S = 5.0
"""Seconds that a thread has to end."""


@dataclass(slots=True)
class Ending:
    """What signals did so far."""

    received: list[int] = field(default_factory=list)
    """Every signal, in order."""
    by: int | None = None
    """The signal that asked for the end; None while none did."""
    stops: list[Callable[[], None]] = field(default_factory=list)
    """What the first signal has called by a thread; while there is nothing, it raises."""
    wake: SimpleQueue[int] = field(default_factory=SimpleQueue)
    """Wakes that thread. Its `put` may be called from a signal handler."""
    thread: threading.Thread | None = None
    """That thread."""
    order: Iterator[int] = field(default_factory=count)
    """Numbers the signals: one step, which no other signal's handler can divide."""

    def wait(self) -> None:
        """Call what stops runs, once a signal comes; the thread's work."""
        if self.wake.get() != _OVER:
            for stop in self.stops:
                stop()

    def take(self, number: int) -> bool:
        """Count a signal; True for the first one."""
        position = next(self.order)
        self.received.append(number)
        if position + 1 >= _KILLS_AT:
            # The default action ends the process at once, as a user who signals three times wants.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        return position == 0


_current: Ending | None = None


@contextmanager
def polite_end(*, last: bool = False) -> Iterator[Ending]:
    """Let the first signal end the block, and no other one disturb how it ends.

    Args:
        last: The process ends after the block: a late signal must not disturb that either, and it
            must not take long.

    The first has what `on_first_signal` was given called, or raises KeyboardInterrupt (SIGINT) or
    SystemExit(128 + number). A signal that was ignored before (`nohup`) stays ignored. Outside the
    main thread, where Python handles no signals, the block just runs.
    """
    global _current  # noqa: PLW0603 (signal handlers belong to the process too)
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if not ending.take(number):
            return
        ending.by = number
        if ending.stops:
            # `SimpleQueue.put` takes no lock that the interrupted thread could hold.
            ending.wake.put(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(128 + number)

    before = _install(handle)
    # Blocks may nest (a command that runs another): the inner one gives back what it found.
    outer, _current = _current, ending
    try:
        yield ending
    finally:
        _current = outer
        ending.wake.put(_OVER)
        if ending.thread is not None:
            ending.thread.join(_JOIN_S)
        # They may hold the last reference to a model. Freed while the interpreter ends, a tensor
        # waits for the interpreter's lock in native code, and C++ aborts the process.
        ending.stops.clear()
        if last:
            # Else the interpreter looks for circles of references among all objects when it ends:
            # up to 1.4 s of CPU time where torch is imported.
            atexit.register(gc.freeze)
        # At the very end the interpreter puts back the default action, but keeps what is ignored.
        _restore(dict.fromkeys(before, signal.SIG_IGN) if last and ending.received else before)


def on_first_signal(stop: Callable[[], None]) -> None:
    """Have the first signal from now on call `stop` and raise nothing; several are all called.

    They are called from a thread of their own: a signal handler runs between any two steps of the
    main thread, also while that holds the lock which `stop` needs. For a loop that ends by itself
    after `stop`; without a `polite_end` around it does nothing.
    """
    ending = _current
    if ending is None:
        return
    ending.stops.append(stop)
    if ending.thread is None:
        ending.thread = threading.Thread(target=ending.wait, name="signals", daemon=True)
        ending.thread.start()


@contextmanager
def deferred() -> Iterator[None]:
    """Hold off what signals do until the block is done, as while outputs are closed.

    Under `polite_end` they are only counted; otherwise the first acts after the block as it would
    have acted at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = _current or Ending()
    held: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        held.append(number)
        ending.take(number)

    before = _install(hold)
    try:
        yield
    finally:
        _restore(before)
    # The handlers from before are set again: the signal acts now, late but once.
    if held and _current is None:
        signal.raise_signal(held[0])


def _install(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Set the handler of every signal that is not ignored; return those that were set before."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # None: set by code outside Python, which could not be restored.
    changed = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in changed:
        signal.signal(number, handler)
    return changed


def _restore(before: dict[signal.Signals, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
