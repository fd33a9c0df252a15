"""One image of one stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ape_stream.values.arrays import read_only

if TYPE_CHECKING:
    from collections.abc import Callable
    from fractions import Fraction

    from numpy.typing import NDArray

    from ape_stream.values.depth import Depth

__all__ = ["DeferredFrame", "Frame"]

_NO_IMAGE = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of one stream."""

    image: NDArray[np.uint8]
    """Pixels, (H, W, 3) uint8, blue-green-red, 0..255, read-only."""
    index: int
    """Position counted at the source from 0; a dropped frame leaves a gap."""
    time_s: float
    """Seconds on the stream's own clock (its presentation timestamp)."""
    stream: str = "0"
    """Name of the stream, unique within a run."""
    captured_ns: int = 0
    """`time.monotonic_ns()` when the source delivered it; its age counts from here."""
    origin: str | None = None
    """The image file it was read from, or None for video."""
    segment: int = 0
    """How often the stream's clock has stepped back before; no track goes on into a new segment."""
    pts: int | None = None
    """Presentation timestamp as the container has it, in units of `time_base`; None where there is
    none."""
    time_base: Fraction | None = None
    """Seconds of one unit of `pts`."""

    depth: Depth | None = None
    """Its depth, where the source has one: results can then be lifted (`ape_stream.depth.lift`)."""

    def __post_init__(self) -> None:
        """Check the image and make it read-only."""
        shape, dtype = self.image.shape, self.image.dtype
        if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
            raise ValueError(f"a frame is (H, W, 3) uint8 and not empty, got {shape} {dtype}")
        # The one way to set a field of a frozen dataclass while it is made.
        object.__setattr__(self, "image", read_only(self.image))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def __repr__(self) -> str:
        height, width = self.size
        return f"Frame({self.stream!r} #{self.index} at {self.time_s:.3f} s, {width}x{height})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DeferredFrame(Frame):
    """A frame whose image is made when the model takes it: an overtaken one costs nothing.

    Until then `image` is a placeholder of one pixel. Only a pipeline makes use of it.
    """

    make: Callable[[Frame], Frame] | None = None
    """Makes the frame; given this one for its index, time, stream, segment and capture time."""

    @classmethod
    def of(cls, frame: Frame) -> Frame:
        """The frame itself, made where it was deferred.

        Raises:
            SourceError: its image cannot be read.
            ValueError: the same.
        """
        return frame.make(frame) if isinstance(frame, cls) and frame.make is not None else frame

    @classmethod
    def later(
        cls, make: Callable[[Frame], Frame], index: int, time_s: float, stream: str, now_ns: int
    ) -> DeferredFrame:
        """A frame that `make` makes later; `now_ns` is its capture time."""
        return cls(_NO_IMAGE, index, time_s, stream, now_ns, make=make)
