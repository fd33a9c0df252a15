"""Images on their way from the subscription to the pipeline: counts, and a limit of their rate."""

from __future__ import annotations

import time
from dataclasses import dataclass

__all__ = ["ImageCounts", "RateLimit"]


@dataclass(slots=True)
class ImageCounts:
    """Images that came to the node."""

    received: int = 0
    """All that arrived."""
    skipped: int = 0
    """Left out by `max_rate`, or because the node was not active."""
    unreadable: int = 0
    """Left out because their pixels could not be read or their stamp was impossible."""


class RateLimit:
    """Admits images at a rate that holds on average, even where their times jitter."""

    def __init__(self) -> None:
        self._due_s = 0.0

    def admits(self, rate: float) -> bool:
        """Whether an image is admitted now.

        Args:
            rate: Images per second; 0 admits all.
        """
        now_s = time.monotonic()
        if rate > 0 and now_s < self._due_s:
            return False
        # Steps of one period from the last due time, not from now: so a late image is made up for.
        self._due_s = max(now_s, self._due_s + (1 / rate if rate > 0 else 0.0))
        return True
