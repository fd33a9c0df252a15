"""A bounded hand-over between two threads: lossless, or newest-wins with counted drops.

Lossless: `put` waits for room (back-pressure). Newest-wins: `put` never waits; the oldest waiting
item is dropped for room and reported. `end` lets the reader take what still waits; `abort` drops
and reports it, and wakes both sides at once. So every item that was put is either taken, waiting,
or reported as dropped with its cause.

Channels that share one `guard` change together: whoever holds it sees all counts of one moment.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OVERTAKEN", "Aborted", "Channel", "Ended"]

T = TypeVar("T")

OVERTAKEN = "overtaken"
"""Cause of a drop: a newer item came before this one was taken."""


class Ended(Exception):  # noqa: N818 (a signal between threads, not an error)
    """The writer has ended and everything was taken."""


class Aborted(Exception):  # noqa: N818 (a signal between threads, not an error)
    """The channel was aborted: leave the loop."""


class Channel(Generic[T]):
    """A queue from one writer to one reader.

    Args:
        capacity: How many items may wait, at least 1.
        newest_wins: True: the oldest waiting item is dropped for room. False: `put` waits.
        guard: Condition shared with other channels; None makes a new one.
        on_drop: Called under the guard with every item that is dropped and the cause.
    """

    def __init__(
        self,
        capacity: int,
        *,
        newest_wins: bool = False,
        guard: threading.Condition | None = None,
        on_drop: Callable[[T, str], None] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a channel holds at least 1 item, got a capacity of {capacity}")
        self.capacity = capacity
        self.newest_wins = newest_wins
        self.guard = guard if guard is not None else threading.Condition()
        self.put_wait_s = 0.0
        """Seconds that the writer waited for room."""
        self.get_wait_s = 0.0
        """Seconds that the reader waited for items."""
        self._items: deque[T] = deque()
        self._offering = 0  # 1 while `put` waits for room
        self._ended = False
        self._abort_cause: str | None = None
        self._on_drop = on_drop

    def __len__(self) -> int:
        """Items that wait to be taken, with the one that a writer holds while it waits for room."""
        with self.guard:
            return len(self._items) + self._offering

    @property
    def room(self) -> int:
        """How many items can be put without a wait."""
        with self.guard:
            return self.capacity - len(self._items)

    @property
    def ready(self) -> int:
        """How many items can be taken without a wait."""
        with self.guard:
            return len(self._items)

    @property
    def exhausted(self) -> bool:
        """True once the writer has ended and everything was taken."""
        with self.guard:
            return self._ended and not self._items

    @property
    def abort_cause(self) -> str | None:
        """The cause that `abort` was called with, or None before."""
        with self.guard:
            return self._abort_cause

    def put(self, item: T) -> None:
        """Add an item; wait for room, or drop the oldest one where the newest wins.

        Raises:
            Aborted: the channel is aborted; the item counts as dropped by the abort's cause.
            RuntimeError: the writer has already ended the channel.
        """
        with self.guard:
            if self._ended:
                raise RuntimeError("put after end")
            if self.newest_wins:
                self._make_room()
            else:
                self._await_room()
            # Checked after the wait: an abort during it must not leave the item in the queue.
            if self._abort_cause is not None:
                self._drop(item, self._abort_cause)
                raise Aborted
            self._items.append(item)
            # All are woken: the guard is shared, and one alone could be a waiter of another
            # channel.
            self.guard.notify_all()

    def _make_room(self) -> None:
        while len(self._items) >= self.capacity:
            self._drop(self._items.popleft(), OVERTAKEN)

    def _await_room(self) -> None:
        # While it waits, the item is counted by `len`: it left the source and is not dropped.
        start = time.monotonic()
        self._offering += 1
        try:
            self.guard.wait_for(
                lambda: self._abort_cause is not None or len(self._items) < self.capacity
            )
        finally:
            self._offering -= 1
            self.put_wait_s += time.monotonic() - start

    def get(self, timeout_s: float | None = None) -> T:
        """Take the oldest waiting item; wait for one.

        Raises:
            Ended: the writer has ended and everything was taken.
            Aborted: the channel is aborted.
            TimeoutError: nothing came within `timeout_s` seconds.
        """
        start = time.monotonic()
        with self.guard:
            self.guard.wait_for(
                lambda: self._items or self._ended or self._abort_cause is not None, timeout_s
            )
            self.get_wait_s += time.monotonic() - start
            # Before the items: an abort ends the reader even where something could still be taken.
            if self._abort_cause is not None:
                raise Aborted
            if self._items:
                self.guard.notify_all()
                return self._items.popleft()
            if self._ended:
                raise Ended
            raise TimeoutError(f"nothing came within {timeout_s} s")

    def end(self) -> None:
        """Declare that no more will be put; what waits can still be taken."""
        with self.guard:
            self._ended = True
            self.guard.notify_all()

    def abort(self, cause: str) -> None:
        """Drop what waits and wake both sides; the first cause stays."""
        with self.guard:
            if self._abort_cause is None:
                # Kept: after a failure, closing aborts once more, as "stopped".
                self._abort_cause = cause
            while self._items:
                self._drop(self._items.popleft(), self._abort_cause)
            self.guard.notify_all()

    def _drop(self, item: T, cause: str) -> None:
        if self._on_drop is not None:
            self._on_drop(item, cause)
