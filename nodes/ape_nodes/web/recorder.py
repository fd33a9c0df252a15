"""Videos and snapshots, into one configured folder, under names that the server makes."""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from ape_stream.channel import Aborted, Channel, Ended
from ape_stream.draw import draw
from ape_stream.errors import ApeStreamError, ConfigError, UsageError
from ape_stream.files import file_name, written
from ape_stream.sinks.video import VideoSink
from ape_stream.types import Instances, Maps, PanopticMap, SemanticMap

if TYPE_CHECKING:
    from ape_stream.types import FrameResult

__all__ = ["Recorder", "Rotation", "jpeg", "plain"]

WAITING: Final = 8
"""Frames that may wait for the encoder; then the oldest is left out."""
_log = logging.getLogger("ape_stream")


class Rotation:
    """When a recording goes on in another file.

    Args:
        megabytes: Size of a file.
        seconds: Length of a file.
    """

    def __init__(self, megabytes: float, seconds: float) -> None:
        if megabytes <= 0 or seconds <= 0:
            raise ConfigError("a recording's files have a size and a length above 0")
        self._bytes = megabytes * 1e6
        self._seconds = seconds

    def due(self, path: Path, since_s: float) -> bool:
        """Whether the file at `path`, begun at `since_s` (monotonic), is full."""
        if time.monotonic() - since_s >= self._seconds:
            return True
        with suppress(OSError):
            return path.stat().st_size >= self._bytes
        return False


class _Recording:
    """One camera's recording, in a thread of its own."""

    def __init__(self, folder: Path, stream: str, rotation: Rotation, *, overlay: bool) -> None:
        self.problem: str | None = None
        self._folder = folder
        self._stream = stream
        self._rotation = rotation
        self._overlay = overlay
        self._queue: Channel[FrameResult] = Channel(WAITING, newest_wins=True)
        self._thread = threading.Thread(target=self._work, name=f"record {stream}", daemon=True)
        self._thread.start()

    def write(self, result: FrameResult) -> None:
        with suppress(Aborted):
            self._queue.put(result)

    def close(self) -> None:
        self._queue.end()
        self._thread.join(5.0)

    def _work(self) -> None:
        try:
            while (result := self._next()) is not None:
                self._one_file(result)
        except ApeStreamError as error:
            self.problem = " ".join(str(error).split())
            _log.warning("the recording of %s has ended: %s", self._stream, self.problem)
            self._queue.abort("failed")

    def _one_file(self, result: FrameResult) -> None:
        """Write a file from this result on, until it is full or the recording ends."""
        path = _free_name(self._folder, self._stream, ".mp4")
        since_s = time.monotonic()
        following: FrameResult | None = result
        with VideoSink(str(path)) as sink:
            while following is not None:
                sink.write(following if self._overlay else plain(following))
                if self._rotation.due(sink.file.part, since_s):
                    return
                following = self._next()

    def _next(self) -> FrameResult | None:
        """The next result; None at the end of the recording."""
        try:
            return self._queue.get()
        except (Ended, Aborted):
            return None


class Recorder:
    """Writes into a folder.

    Args:
        folder: Where; None refuses everything.
        rotation: When a recording goes on in another file.
    """

    def __init__(self, folder: str | None, rotation: Rotation) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()
        self._rotation = rotation
        self._recordings: dict[str, _Recording] = {}
        self._lock = threading.Lock()
        if self.folder is not None:
            with written(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)

    def checked_folder(self) -> Path:
        """The folder that files go to.

        Raises:
            UsageError: none was given.
        """
        if self.folder is None:
            raise UsageError("no folder was given when the server was started (--folder DIR)")
        return self.folder

    def record(self, stream: str, *, on: bool, overlay: bool) -> None:
        """Start or stop recording a stream.

        Raises:
            UsageError: there is no folder.
        """
        folder = self.checked_folder()
        with self._lock:
            running = self._recordings.pop(stream, None)
            if on:
                # The same again goes on; another kind begins a new file.
                self._recordings[stream] = _Recording(
                    folder, stream, self._rotation, overlay=overlay
                )
        if running is not None:
            running.close()

    def recording(self, stream: str) -> bool:
        """Whether a stream is being recorded."""
        with self._lock:
            running = self._recordings.get(stream)
        return running is not None and running.problem is None

    def write(self, result: FrameResult) -> None:
        """Record a result, where its stream is being recorded; never waits."""
        with self._lock:
            running = self._recordings.get(result.frame.stream)
        if running is not None:
            running.write(result)

    def snapshot(self, result: FrameResult) -> str:
        """Write the image with its overlay, and what was found; returns the image's name.

        Raises:
            UsageError: there is no folder.
            SinkError: it cannot be written.
        """
        path = _free_name(self.checked_folder(), result.frame.stream, ".png")
        result.save(path)
        with written(path):
            path.with_suffix(".json").write_text(json.dumps(_found(result), indent=1), "utf-8")
        return path.name

    def event_image(self, result: FrameResult) -> str | None:
        """Write a JPEG for an event; None where there is no folder."""
        if self.folder is None:
            return None
        path = _free_name(self.folder, result.frame.stream, ".jpg")
        with written(path):
            path.write_bytes(jpeg(result))
        return path.name

    def close(self) -> None:
        """End all recordings; their files become whole."""
        with self._lock:
            running, self._recordings = [*self._recordings.values()], {}
        for one in running:
            one.close()


def jpeg(result: FrameResult) -> bytes:
    """The image with masks, boxes and labels as a JPEG."""
    return cv2.imencode(".jpg", draw(result), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def plain(result: FrameResult) -> FrameResult:
    """The result without anything that would be drawn."""
    size, maps = result.frame.size, result.maps
    nothing = np.zeros(size, np.uint16)
    return replace(
        result,
        instances=Instances.empty(size),
        maps=Maps(
            semantic=None if maps.semantic is None else SemanticMap(nothing),
            panoptic=None if maps.panoptic is None else PanopticMap(nothing, (), ()),
        ),
    )


def _found(result: FrameResult) -> dict[str, object]:
    """What was found, as plain values for JSON."""
    instances, tracks = result.instances, result.instances.track_ids
    return {
        "stream": result.frame.stream,
        "frame": result.frame.index,
        "time": result.frame.time_s,
        "size": list(result.frame.size),
        "regions": [
            {
                "prompt": result.prompts[prompt].text,
                "score": round(float(instances.scores[k]), 4),
                "box": [round(side, 2) for side in instances.boxes[k].tolist()],
                "track": None if tracks is None or tracks[k] <= 0 else int(tracks[k]),
            }
            for k, prompt in enumerate(instances.prompt_ids.tolist())
        ],
    }


def _free_name(folder: Path, stream: str, suffix: str) -> Path:
    """A name that is not taken, of the stream and the time."""
    stem = f"{file_name(stream)}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"[:-3] + "Z"
    return folder / f"{stem}{suffix}"
