"""The source `browser://NAME`: images that the page of a phone sends of its own camera.

Browsers give a page the camera only over https or on localhost.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final, Self

from ape_stream.channel import Aborted, Channel, Ended
from ape_stream.closing import Closing
from ape_stream.errors import ConfigError, WireError
from ape_stream.sources.clock import StreamClock
from ape_stream.types import Frame
from ape_stream.wire.codecs import decode_image, jpeg_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BrowserSource", "by_name", "decoded"]

MAX_SIDE: Final = 4096
MAX_BYTES: Final = 2**20
"""Bytes of a message from a page that sends images."""
_NAME: Final = re.compile(r"browser://[\w.-]{1,64}/?")

_open: dict[str, BrowserSource] = {}


class BrowserSource(Closing):
    """Frames from a page; live: the newest image takes the place of one that was not decoded yet.

    Args:
        spec: `browser://NAME`.
        name: Name of the stream.
    """

    live = True

    def __init__(self, spec: str, *, name: str) -> None:
        if not _NAME.fullmatch(spec):
            raise ConfigError(f"{spec!r}: a browser's camera is browser://NAME")
        self.name = name
        self.refused = 0
        """Messages that held no usable JPEG."""
        self._images: Channel[tuple[bytes, float]] = Channel(1, newest_wins=True)
        self._clock = StreamClock()

    def __enter__(self) -> Self:
        _open[self.name] = self
        return self

    def close(self, _: BaseException | None = None, /) -> None:
        """End the stream."""
        _open.pop(self.name, None)
        self._images.abort("stopped")

    def offer(self, image: bytes, captured_us: int) -> None:
        """Take a JPEG from a page; never waits.

        Args:
            image: The JPEG.
            captured_us: Microseconds on the page's clock.
        """
        try:
            self._images.put((image, captured_us / 1e6))
        except Aborted:
            return

    def __iter__(self) -> Iterator[Frame]:
        """Yield what pages send."""
        index = 0
        while True:
            try:
                data, time_s = self._images.get()
            except (Aborted, Ended):
                return
            image = decoded(data)
            if image is None or not 0 <= time_s < 1e10:
                self.refused += 1
                continue
            frame = Frame(image, index, time_s, self.name, time.monotonic_ns())
            index += 1
            yield self._clock.placed(frame, time.monotonic())


def by_name(name: str) -> BrowserSource | None:
    """The open source of a stream, if a page is its camera."""
    return _open.get(name)


def decoded(data: bytes) -> NDArray[np.uint8] | None:
    """The image of a JPEG, (H, W, 3) uint8 blue-green-red; None where it is none, or too large."""
    # The size first: a JPEG of a few bytes may ask for gigabytes.
    size = jpeg_size(data)
    if size is None or max(size) > MAX_SIDE or min(size) < 1:
        return None
    try:
        return decode_image(data, "jpeg", *size)
    except WireError:
        return None
