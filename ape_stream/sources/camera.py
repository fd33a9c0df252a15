"""USB and V4L2 cameras by OpenCV."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import cv2
import numpy as np

from ape_stream.closing import Closing
from ape_stream.errors import SourceError
from ape_stream.types import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CameraSource"]

SILENT_S: Final = 5.0
"""A camera that gives no frame for this long is gone."""


class CameraSource(Closing):
    """A local camera; time is that of its first frame onwards.

    Args:
        spec: A device number (`0`, `camera://0`) or path (`/dev/video0`).
        name: Of the stream, written into every frame; None for the spec itself.
        width: Wanted width in pixels; None leaves it to the camera.
        height: Wanted height in pixels; likewise.
        fps: Wanted frames per second; likewise.

    Raises:
        SourceError: on entering, there is no such camera; while reading, it went away.
    """

    def __init__(
        self,
        spec: str,
        *,
        name: str | None = None,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
    ) -> None:
        self.spec = spec
        self.name = name or spec
        self.live = True
        self._wanted = {
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_FPS: fps,
        }
        self._closed = threading.Event()
        # `_reading` is held by the thread that reads: no device is released in the middle of a
        # read.
        self._reading = threading.Lock()
        self._device = spec.removeprefix("camera://")
        numbered = self._device.isdecimal()
        self._path = Path(f"/dev/video{self._device}" if numbered else self._device)

    def check(self) -> None:
        """Refuse a device that is not there; see `ChecksItself`."""
        if Path("/dev").is_dir() and not self._path.exists():
            there = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*")))
            raise SourceError(
                f"there is no camera {self._device} ({self._path} does not exist):"
                f" {f'there are {there}' if there else 'no camera is plugged in'}"
            )

    def __enter__(self) -> Self:
        """Open the device."""
        self.check()
        device: int | str = int(self._device) if self._device.isdecimal() else self._device
        # V4L2 by name: OpenCV's own choice may open a camera through GStreamer or FFmpeg instead.
        self._capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceError(f"camera {self._path} cannot be opened: another program may use it")
        for key, value in self._wanted.items():
            if value is not None:
                # Only asked for: a camera takes the nearest mode that it has.
                self._capture.set(key, value)
        return self

    def close(self, _: BaseException | None = None, /) -> None:
        """Give the device back, or have the thread that reads it do so after its frame."""
        self._closed.set()
        # Not waiting here: a camera that hangs in `read` would keep the lock. Its thread then finds
        # `_closed` set and releases the device itself.
        if self._reading.acquire(blocking=False):
            self._capture.release()
            self._reading.release()

    def __iter__(self) -> Iterator[Frame]:
        """Read until the camera goes away; see `Source`."""
        with self._reading:
            try:
                yield from self._frames()
            finally:
                # Closed meanwhile: `__exit__` did not get the lock and left the device to this
                # thread.
                if self._closed.is_set():
                    self._capture.release()

    def _frames(self) -> Iterator[Frame]:
        start_ns = heard_ns = time.monotonic_ns()
        index = 0
        while not self._closed.is_set():
            good, image = self._capture.read()  # (H, W, 3) uint8, blue-green-red
            now_ns = time.monotonic_ns()
            if not good:
                if now_ns - heard_ns > SILENT_S * 1e9:
                    raise SourceError(
                        f"camera {self._device} gives no more frames: is it plugged in?"
                    )
                # A failed read returns at once: wait, or the loop takes a whole core.
                self._closed.wait(0.01)
                continue
            heard_ns = now_ns
            yield Frame(
                np.asarray(image, np.uint8), index, (now_ns - start_ns) / 1e9, self.name, now_ns
            )
            index += 1
