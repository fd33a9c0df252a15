"""Images that are already in memory as a stream."""

from __future__ import annotations

import math
import time
from collections.abc import Sized
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from ape_stream.closing import Closing
from ape_stream.sources.pixels import to_bgr
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ape_stream.sources.pixels import ImageLike

    Item: TypeAlias = ImageLike | Frame

__all__ = ["MemorySource"]


class MemorySource(Closing):
    """Arrays, PIL images or ready frames, in the order of an iterable.

    Args:
        images: What is shown; a generator is read while the pipeline runs, one image ahead. It is
            read in another thread: an iterable that waits for ever cannot be stopped.
        name: Of the stream.
        fps: Images per second of the stream's clock, above 0. A ready `Frame` keeps its own index
            and time.
    """

    live = False

    def __init__(self, images: Iterable[Item], *, name: str = "images", fps: float = 30.0) -> None:
        if not 0 < fps < math.inf:
            raise ValueError(f"fps is a number above 0, got {fps}")
        self.name = name
        self._images = images
        self._fps = fps
        self._closed = False

    @property
    def frame_count(self) -> int | None:
        """How many there are, or None for a generator."""
        return len(self._images) if isinstance(self._images, Sized) else None

    def close(self, _: BaseException | None = None, /) -> None:
        """Let the iteration end before its next image."""
        self._closed = True

    def __iter__(self) -> Iterator[Frame]:
        """Yield a frame for each image.

        Raises:
            UsageError: an item is no image.
            SourceError: the file of an image cannot be read.
        """
        for index, item in enumerate(self._images):
            if self._closed:
                return
            # Checked between images only: an iterable that blocks cannot be interrupted from here.
            yield self._frame(index, item)

    def _frame(self, index: int, item: Item) -> Frame:
        now = time.monotonic_ns()
        if isinstance(item, Frame):
            # The stream's name is that of the source; a capture time of its own stays.
            return replace(item, stream=self.name, captured_ns=item.captured_ns or now)
        return Frame(to_bgr(item), index, index / self._fps, self.name, now)
