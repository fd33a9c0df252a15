"""The final files of a clip: records, overlay, sheet, frames, and strips for the report."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final, Self

import cv2

from ape_stream.annotation.records import frame_line, frame_values
from ape_stream.annotation.strips import Strips
from ape_stream.batch.shards import write_whole
from ape_stream.closing import Closing
from ape_stream.files import PartFile, written
from ape_stream.formats.records import RESULTS, VideoRecord, record_line, video_folder
from ape_stream.sinks.sheet import SheetSink
from ape_stream.sinks.video import VideoSink

if TYPE_CHECKING:
    from pathlib import Path

    from ape_stream.annotation.job import OutputOptions
    from ape_stream.batch.job import ClipResults
    from ape_stream.types import FrameResult

__all__ = ["FRAMES", "STRIPS", "ClipOutputs"]

FRAMES: Final = "frames"
"""In the output folder: saved frames, named as the formats name them."""
STRIPS: Final = "strips.jsonl"
"""In a clip's work folder."""
_JPEG_QUALITY: Final = 95
"""Of images to train on: their losses are small next to those of the video."""


class ClipOutputs(Closing):
    """Writes the final files of one clip, each under its name once it is whole.

    Args:
        results: The clip.
        options: Which files.
    """

    def __init__(self, results: ClipResults, options: OutputOptions) -> None:
        self._results = results
        self._options = options
        self._records = PartFile(results.outputs / RESULTS, overwrite=True)
        self._strips = Strips()
        self._sinks: list[VideoSink | SheetSink] = []
        if options.blur or options.pixelate:
            # No sheet: it would show what is to be hidden.
            self._sinks.append(self._video("redacted.mp4"))
        elif options.overlay:
            sheet = SheetSink(str(results.outputs / "sheet.png"), overwrite=True)
            self._sinks += [self._video("overlay.mp4"), sheet]
        self.files: list[Path] = []
        """The files that were written, once it is closed."""
        self.frames = 0
        """Frames written so far."""

    def _video(self, name: str) -> VideoSink:
        path = str(self._results.outputs / name)
        blur, pixelate = self._options.blur, self._options.pixelate
        return VideoSink(path, overwrite=True, reproducible=True, blur=blur, pixelate=pixelate)

    def __enter__(self) -> Self:
        """Open the files."""
        self._records.open()
        self._stream = self._records.stream("wb")
        for sink in self._sinks:
            sink.__enter__()
        return self

    def write(self, result: FrameResult) -> None:
        """Write a frame to all of them.

        Raises:
            SinkError: one cannot be written.
        """
        if not self.frames:
            self._stream.write(record_line(self._video_record(result)).encode())
        self.frames += 1
        with written(self._records.part):
            self._stream.write(frame_line(frame_values(result, self._saved(result))))
        for sink in self._sinks:
            sink.write(result)
        self._strips.add(result)

    def _video_record(self, result: FrameResult) -> VideoRecord:
        frame = result.frame
        base = frame.time_base
        return VideoRecord(
            name=self._results.clip.name,
            width=frame.size[1],
            height=frame.size[0],
            source=self._results.clip.source,
            time_base=None if base is None else (base.numerator, base.denominator),
            rate=self._results.rate(),
        )

    def _saved(self, result: FrameResult) -> str | None:
        """Save a frame if that is wanted; of a video, its name below `frames`."""
        suffix, frame = self._options.save_frames, result.frame
        if suffix is None:
            return None
        if frame.origin is not None:
            self._copy(frame.origin)
            return None  # its record has that name anyway
        name = f"{video_folder(frame.stream)}/{frame.index:06d}.{suffix}"
        path = self._results.root / FRAMES / name
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix == "jpg" else []
        _, data = cv2.imencode(f".{suffix}", frame.image, quality)
        with written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not synced one by one: after a power cut the clip is not done, and written again.
            path.write_bytes(data.tobytes())
        return name

    def _copy(self, origin: str) -> None:
        """Put an image that is a file already with the saved frames, as it is."""
        if self._results.folder is not None:
            path = self._results.root / FRAMES / origin
            with written(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._results.folder / origin, path)

    def close(self, error: BaseException | None = None) -> None:
        """Give all files their names; after an error, none."""
        problems: list[Exception] = []
        for close in (self._close_records, *(sink.close for sink in self._sinks)):
            try:
                close(error)
            except Exception as problem:  # noqa: BLE001 (raised below, when all are closed)
                problems.append(problem)
        if error is None and problems:
            raise problems[0]
        if error is None:
            write_whole(self._results.work / STRIPS, self._strips.lines())
            named = [self._records.path, *(sink.file.path for sink in self._sinks)]
            self.files = [path for path in named if path.exists()]

    def _close_records(self, error: BaseException | None) -> None:
        with self._records.finishing(whole=error is None), written(self._records.part):
            self._stream.close()
