"""What goes wrong on one live stream, counted and reported."""

from __future__ import annotations

import logging
import time
from typing import Final

__all__ = ["Faults"]

_log: Final = logging.getLogger(__name__)


class Faults:
    """Reports the first, second, fourth, eighth ... fault of a kind.

    So the log of a camera that fails all the time stays short, and its last line still shows
    how often it failed.

    Args:
        shown: The stream's address as users may read it.
    """

    def __init__(self, shown: str) -> None:
        self.damaged = 0
        """Packets that could not be decoded."""
        self.lost = 0
        """Connections that ended or were silent while more was expected."""
        self._shown = shown
        self._lost_since_s: float | None = None

    def note_damage(self) -> None:
        """Count a packet that costs its frame, but not the connection."""
        self.damaged += 1
        if _is_power_of_two(self.damaged):
            packets = "packet was" if self.damaged == 1 else "packets were"
            _log.warning("%s: %d damaged %s left out", self._shown, self.damaged, packets)

    def note_loss(self, reason: str, heard_s: float, tried_s: float) -> None:
        """Count an outage once, however many attempts to connect again fail.

        Args:
            reason: Why the connection is over.
            heard_s: When the last frame came, seconds of `time.monotonic`.
            tried_s: How long it is tried again, seconds.
        """
        if self._lost_since_s is not None:
            return
        self._lost_since_s = heard_s
        self.lost += 1
        if _is_power_of_two(self.lost):
            outage = "" if self.lost == 1 else f", outage {self.lost}"
            _log.warning("%s: %s%s; trying again for %g s", self._shown, reason, outage, tried_s)

    def note_frame(self) -> None:
        """End an outage, if there was one."""
        if self._lost_since_s is None:
            return
        if _is_power_of_two(self.lost):
            away_s = time.monotonic() - self._lost_since_s
            _log.warning("%s: frames again after %.1f s", self._shown, away_s)
        self._lost_since_s = None


def _is_power_of_two(count: int) -> bool:
    return count.bit_count() == 1
