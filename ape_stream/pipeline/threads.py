"""The threads of a run: started, joined with a time limit, and reported when one is left behind."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_stream.pipeline.stream import SourceStream

__all__ = ["Threads"]

RELEASE_S = 0.5
"""Seconds that a thread has to end by itself; then its source is closed under it."""
JOIN_S = 2.0
"""Seconds that a thread has after that; then it is left behind."""

_log = logging.getLogger("ape_stream")


class Threads:
    """The threads of one run."""

    def __init__(self) -> None:
        self._threads: dict[threading.Thread, SourceStream | None] = {}

    def start(self, name: str, work: Callable[[], None], stream: SourceStream | None) -> None:
        """Run `work` in a thread of this name; `stream` is the one that it reads, if any."""
        # Daemon: a thread stuck in a driver must not keep the process alive.
        thread = threading.Thread(target=work, name=f"ape_stream {name}", daemon=True)
        self._threads[thread] = stream
        thread.start()

    def join(self, release: Callable[[list[SourceStream]], None]) -> None:
        """Wait for every thread to end, but never for ever.

        Args:
            release: Called with the streams that are still being read after `RELEASE_S`: closing
                their sources wakes the threads that wait for a device.
        """
        if not self._join(RELEASE_S):
            alive = [stream for thread, stream in self._threads.items() if thread.is_alive()]
            release([stream for stream in alive if stream is not None])
            self._join(JOIN_S)
        for thread in self._threads:
            if thread.is_alive():
                _log.warning(
                    "%s did not end within %.1f s and was left behind",
                    thread.name.removeprefix("ape_stream "),
                    RELEASE_S + JOIN_S,
                )

    def _join(self, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            # One deadline for all: each thread gets what the ones before have left.
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)
