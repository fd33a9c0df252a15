"""A source that is fed from outside: a ROS callback, a message loop, a test."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ape_stream.channel import Aborted, Channel, Ended
from ape_stream.closing import Closing
from ape_stream.errors import UsageError
from ape_stream.sources.clock import StreamClock, checked_s
from ape_stream.sources.pixels import to_bgr
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_stream.sources.pixels import ImageLike

__all__ = ["PushSource"]


class PushSource(Closing):
    """Frames that somebody pushes from another thread.

    A pushed frame waits only until the pipeline has taken it over, which a live pipeline does at
    once; what is dropped is then dropped, and counted, by the pipeline.

    Args:
        name: The stream's name.
        live: False makes `push` wait while the model is busy, so that no frame is lost.

    A time that steps back (a sender that was started again) begins a new segment: the stream's
    clock goes on by as long as nothing was pushed, tracks end, and `restarts` counts it.
    """

    def __init__(self, name: str, *, live: bool = True) -> None:
        self.name = name
        self.live = live
        # One frame: the pipeline's own channel decides what waits and what is dropped.
        self._channel: Channel[Frame] = Channel(1)
        self._clock = StreamClock()
        self._count = 0

    @property
    def restarts(self) -> int:
        """How often times stepped back."""
        return self._clock.restarts

    def push(self, image: ImageLike, time_s: float, origin: str | None = None) -> bool:
        """Hand an image over.

        Args:
            image: (H, W, 3) uint8, blue-green-red, not to be written to afterwards; or what else
                `find` takes for one image.
            time_s: Seconds on the sender's clock, 0 up to 1e10.
            origin: The file it came from, if any.

        Returns:
            False once the run is over: push no more.

        Raises:
            UsageError: the image is none, or the time is out of range; the run goes on without
                this frame.
        """
        # Before the frame is counted: what is refused must not leave a gap in the indices.
        pixels = to_bgr(image)
        try:
            checked_s(time_s)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"a frame's time is a number of seconds, 0 or more: {error}"
            ) from error
        frame = Frame(pixels, self._count, time_s, self.name, time.monotonic_ns(), origin)
        self._count += 1
        return self.put(frame)

    def put(self, frame: Frame) -> bool:
        """Hand a ready frame over; its index is the caller's, a hole is one left out before.

        Args:
            frame: Of this stream.

        Returns:
            False once the run is over: put no more.

        Raises:
            ValueError: its time is out of range; the run goes on without this frame.
        """
        placed = self._clock.placed(frame, time.monotonic())
        try:
            self._channel.put(placed)
        except (Aborted, RuntimeError):  # RuntimeError: put after `end`
            return False
        return True

    def end(self) -> None:
        """Say that no more frames come; the pipeline then ends by itself."""
        self._channel.end()

    def close(self, _: BaseException | None = None, /) -> None:
        """Wake whoever waits on either side."""
        self._channel.abort("stopped")

    def __iter__(self) -> Iterator[Frame]:
        """Yield what is pushed until `end`."""
        while True:
            try:
                yield self._channel.get()
            except (Ended, Aborted):
                return
