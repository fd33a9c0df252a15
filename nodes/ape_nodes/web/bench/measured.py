"""What `ape-stream bench live` has measured."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_nodes.web.bench.screen import Shown

__all__ = ["Line", "Measured", "mean"]


@dataclass(frozen=True, slots=True)
class Line:
    """One measurement."""

    form: str
    """Who looks."""
    cpu_ms: float
    """CPU time of the server for a source's frame, milliseconds."""
    encoder_ms: float | None = None
    """Of it that of the image's encoder."""
    fps: float | None = None
    """Images a second of the slowest good viewer."""
    age_ms_p50: float | None = None
    """Capture to receipt at the good viewers."""
    age_ms_p95: float | None = None
    kilobytes: float | None = None
    """Of an image and its masks, for each good viewer."""
    slow_age_ms_p50: float | None = None
    """The same age at a viewer that reads 1 MB/s."""


@dataclass(slots=True)
class Measured:
    """All of one run, as it comes: what was measured before something failed is not lost."""

    each: Callable[[Line | Shown], None] | None = None
    """Called with each measurement."""
    lines: list[Line] = field(default_factory=list)
    known_ms: float | None = None
    """From a prompt that is added to the first masks that know it."""
    lost: int | None = None
    """Images that were lost meanwhile."""
    shown: list[Shown] = field(default_factory=list)
    """Ages on the screen; empty without a browser."""

    def add(self, row: Line | Shown) -> None:
        """Take one more measurement."""
        if isinstance(row, Line):
            self.lines.append(row)
        else:
            self.shown.append(row)
        if self.each is not None:
            self.each(row)


def mean(one: Line, other: Line) -> Line:
    """Two measurements of a form as one; the lower of the images a second."""
    values = {
        field.name: (getattr(one, field.name) + getattr(other, field.name)) / 2
        for field in fields(Line)
        if None not in (getattr(one, field.name), getattr(other, field.name))
        and field.name not in {"form", "fps"}
    }
    rates = [line.fps for line in (one, other) if line.fps is not None]
    return replace(one, **values, fps=min(rates, default=None))
