"""The source `still://PATH`: one image that stays, for a page that tries prompts on it.

The image is looked at again whenever the prompts change, and a page may put another in its place.
`ape-stream live photo.jpg` makes one of each image that it is given.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ape_nodes.web import browser_camera
from ape_nodes.web.browser_camera import BrowserSource
from ape_stream.channel import Aborted, Channel, Ended
from ape_stream.errors import ConfigError
from ape_stream.sources.pixels import read_image
from ape_stream.specs import IMAGE_SUFFIXES
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["StillSource", "by_name", "still_of"]

_SCHEME: Final = "still://"


def still_of(source: str) -> str:
    """The source that shows an image file for good; every other source as it is."""
    path = Path(source)
    shown = path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    return f"{_SCHEME}{source}" if shown else source


class StillSource(BrowserSource):
    """An image, again for each change of the prompts.

    Args:
        spec: `still://PATH` of an image file.
        name: Name of the stream.
    """

    live = False

    def __init__(self, spec: str, *, name: str) -> None:
        self._path = Path(spec.removeprefix(_SCHEME))
        if not self._path.name:
            raise ConfigError(f"{spec!r}: an image that stays is still://PATH")
        super().__init__("browser://still", name=name)
        self._wake: Channel[None] = Channel(1, newest_wins=True)
        self._lock = threading.Lock()
        self._given: NDArray[np.uint8] | None = None

    def check(self) -> None:
        """Refuse a file that is no image; see `ChecksItself`."""
        read_image(self._path)

    def close(self, error: BaseException | None = None, /) -> None:
        """End the stream."""
        super().close(error)
        self._wake.abort("stopped")

    def offer(self, image: bytes, _captured_us: int) -> None:
        """Show this JPEG from now on; never waits."""
        decoded = browser_camera.decoded(image)
        if decoded is None:
            self.refused += 1
            return
        with self._lock:
            self._given = decoded
        self.again()

    def again(self) -> None:
        """Look at the image once more; never waits."""
        try:
            self._wake.put(None)
        except Aborted:
            return

    def __iter__(self) -> Iterator[Frame]:
        """Yield the image at once, and whenever it or the prompts change."""
        image, started, index = read_image(self._path), time.monotonic(), 0
        while True:
            now_ns = time.monotonic_ns()
            yield Frame(image, index, now_ns / 1e9 - started, self.name, now_ns)
            index += 1
            try:
                self._wake.get()
            except (Aborted, Ended):
                return
            with self._lock:
                image = image if self._given is None else self._given


def by_name(name: str) -> StillSource | None:
    """The open source of a stream, if it is an image that stays."""
    source = browser_camera.by_name(name)
    return source if isinstance(source, StillSource) else None
