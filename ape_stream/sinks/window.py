"""A window with the live overlay: q or Esc ends the run, space pauses it, s saves a PNG."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import cv2

from ape_stream.closing import Closing
from ape_stream.draw import draw
from ape_stream.errors import SinkError
from ape_stream.files import file_name, written
from ape_stream.sinks.screen import screen_size

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ape_stream.types import FrameResult

__all__ = ["WindowSink"]

LARGEST: Final = (1280, 720)
"""Width and height of a new window at most, pixels."""
_OF_SCREEN: Final = (0.95, 0.85)
"""Of the screen's width and height: the frame and the title of a window need room, too."""
_END_KEYS: Final = (ord("q"), 27)  # 27: Esc
_PAUSED_MS: Final = 50
"""Between two looks at the keyboard while the window is paused."""
_FONTS: Final = ("/usr/share/fonts", "/usr/local/share/fonts")


class WindowSink(Closing):
    """Shows every result as it comes, one window per stream.

    q, Esc, or closing a window ends the run. Space pauses it and lets it go on: a live stream then
    drops frames. s saves what is shown as `<stream>-<frame>.png` in the working directory.

    Args:
        spec: The windows' title.

    Raises:
        SinkError: there is no display.
    """

    def __init__(self, spec: str) -> None:
        self.title = spec
        self._stop: Callable[[], None] | None = None
        self._ended = False
        self._open: list[str] = []

    def on_end(self, stop: Callable[[], None]) -> None:
        """Take the callable that stops the run; see `EndsRun`."""
        self._stop = stop

    def check(self) -> None:
        """Refuse to start without a display: OpenCV would end the whole process."""
        if sys.platform == "linux" and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise SinkError("there is no display for a window: write to a file, such as out.mp4")

    def __enter__(self) -> Self:
        """Make ready for windows; they open with their first frame."""
        self.check()
        _silence_qt()
        return self

    def write(self, result: FrameResult) -> None:
        """Show one frame and obey the keys."""
        if self._ended:
            return
        name = f"{self.title} {result.frame.stream}"
        image = draw(result)
        if name not in self._open:
            self._make(name, image)
        elif _is_closed(name):
            self._end()
            return
        cv2.imshow(name, image)
        # OpenCV draws, and sees keys, only while it waits for one; 1 ms is the shortest wait.
        paused = self._obey(cv2.waitKey(1), result, image)
        while paused and not self._ended:
            paused = not self._obey(cv2.waitKey(_PAUSED_MS), result, image)
            if _is_closed(name):
                self._end()

    def _make(self, name: str, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        largest = _largest()
        scale = min(1.0, largest[0] / width, largest[1] / height)
        cv2.namedWindow(name, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        cv2.resizeWindow(name, max(1, round(width * scale)), max(1, round(height * scale)))
        self._open.append(name)

    def _obey(self, key: int, result: FrameResult, image: NDArray[np.uint8]) -> bool:
        """Do what a key says; True for the one that pauses and goes on."""
        key &= 0xFF  # some backends add modifiers above
        if key in _END_KEYS:
            self._end()
        elif key == ord("s"):
            self._save(result, image)
        return key == ord(" ")

    def _end(self) -> None:
        self._ended = True
        if self._stop is not None:
            self._stop()

    def _save(self, result: FrameResult, image: NDArray[np.uint8]) -> None:
        frame = result.frame
        path = Path(f"{file_name(frame.stream)}-{frame.index:06d}.png")
        with written(path):
            path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
        cv2.setWindowTitle(f"{self.title} {frame.stream}", f"saved {path}")

    def close(self, error: BaseException | None = None) -> None:
        """Close the windows."""
        del error
        cv2.destroyAllWindows()


def _largest() -> tuple[float, float]:
    """Width and height that a new window may have."""
    screen = screen_size() or (math.inf, math.inf)
    width, height = (
        min(limit, part * side)
        for limit, part, side in zip(LARGEST, _OF_SCREEN, screen, strict=True)
    )
    return width, height


def _is_closed(name: str) -> bool:
    try:
        return cv2.getWindowProperty(name, cv2.WND_PROP_VISIBLE) < 1  # 0 or -1: by its button
    except cv2.error:  # Qt: the last window is gone
        return True


def _silence_qt() -> None:
    """OpenCV's wheels bring Qt without fonts, which warns about it at the first window."""
    fonts = next((folder for folder in _FONTS if Path(folder).is_dir()), None)
    if fonts is not None and not Path(os.environ.get("QT_QPA_FONTDIR", "")).is_dir():
        os.environ["QT_QPA_FONTDIR"] = fonts
    rules = os.environ.get("QT_LOGGING_RULES")
    os.environ["QT_LOGGING_RULES"] = ";".join(filter(None, [rules, "default.warning=false"]))
