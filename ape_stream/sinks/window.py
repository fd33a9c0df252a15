"""A window with the live overlay."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Self

import cv2

from ape_stream.draw import draw
from ape_stream.errors import SinkError

if TYPE_CHECKING:
    from types import TracebackType

    from ape_stream.types import FrameResult

__all__ = ["WindowSink"]


class WindowSink:
    """Shows every result as it comes, one window per stream.

    Args:
        spec: anything; it is the windows' title.

    Raises:
        SinkError: there is no display.
    """

    def __init__(self, spec: str) -> None:
        self.title = spec

    def __enter__(self) -> Self:
        """Refuse to start without a display: OpenCV would end the whole process."""
        if sys.platform == "linux" and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise SinkError("there is no display for a window: write to a file, such as out.mp4")
        return self

    def write(self, result: FrameResult) -> None:
        """Show one frame."""
        cv2.imshow(f"{self.title} {result.frame.stream}", draw(result))
        cv2.waitKey(1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Close the windows."""
        cv2.destroyAllWindows()
