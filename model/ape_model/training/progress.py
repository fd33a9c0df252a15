"""Lines of progress: means of the losses since the last line, and the time that is left."""

from __future__ import annotations

from typing import Final

__all__ = ["NORM", "Progress", "time_left"]

NORM: Final = "norm"
"""Key of the gradient's norm among the losses."""


class Progress:
    """Sums the losses of batches until the next line."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}
        self._batches = 0

    def add(self, values: dict[str, float]) -> None:
        """Count one batch: its weighted losses, and the gradient's norm where it made an update."""
        self._batches += 1
        for name, value in values.items():
            self._sums.setdefault(name, []).append(value)

    def take(self) -> tuple[float, dict[str, float]]:
        """Return the mean loss of a batch and the mean of each value where it occurred; restart."""
        # Not every batch has every loss: names and phrases, for example, have their own.
        total = sum(sum(values) for name, values in self._sums.items() if name != NORM)
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        loss = total / max(1, self._batches)
        self._sums, self._batches = {}, 0
        return loss, means


def time_left(seconds: float) -> str:
    """Say how long a run goes on: "2 h 05 min left", "7 min left", "40 s left"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, part = divmod(minutes, 60)
    if hours:
        return f"{hours} h {part:02} min left"
    return f"{minutes} min left" if minutes else f"{rest} s left"
