"""The outputs `out.rrd` and `rerun:`: images, masks, boxes and tracks on the stream's clock.

A file is opened later with `rerun out.rrd`; `rerun:` opens a viewer, or sends to one that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ape_stream import masks
from ape_stream.closing import Closing
from ape_stream.errors import ConfigError, SinkError
from ape_stream.files import is_whole
from ape_stream.optional import library
from ape_stream.sinks.file_sink import FileSink
from ape_stream.wire.codecs import encode_image

if TYPE_CHECKING:
    from ape_stream.types import FrameResult, PromptSet

__all__ = ["RerunFileSink", "RerunSink"]

EXTRA: Final = "rerun"
_QUALITY: Final = 85
"""Of JPEG: raw images of a minute would be gigabytes."""


class _Log:
    """Writes results to a recording of rerun; one entity for each stream."""

    def __init__(self) -> None:
        self._rerun: Any = library("rerun", EXTRA)
        self.recording: Any = self._rerun.RecordingStream("ape_stream")
        self._prompts: dict[str, PromptSet] = {}

    def write(self, result: FrameResult) -> None:
        rerun, frame, found = self._rerun, result.frame, result.instances
        root = ["streams", frame.stream]
        self.recording.set_time("stream", duration=frame.time_s)
        self.recording.set_time("frame", sequence=frame.index)
        self._name_classes(root, frame.stream, result.prompts)
        image = encode_image(frame.image, "jpeg", _QUALITY)
        self._log([*root, "image"], rerun.EncodedImage(contents=image, media_type="image/jpeg"))
        if found.masks is not None:
            # Label k is prompt k - 1, as in the other outputs.
            labels = masks.label_map(found.masks, found.size, (found.prompt_ids + 1).tolist())
            self._log([*root, "image", "masks"], rerun.SegmentationImage(labels, opacity=0.5))
        boxes = rerun.Boxes2D(
            array=found.boxes,
            array_format=rerun.Box2DFormat.XYXY,
            labels=_labels(result),
            class_ids=(found.prompt_ids + 1).astype(np.uint16),
        )
        self._log([*root, "image", "boxes"], boxes)

    def _name_classes(self, root: list[str], stream: str, prompts: PromptSet) -> None:
        """Say what the labels mean, whenever the prompts have changed."""
        if self._prompts.get(stream) is not prompts:
            self._prompts[stream] = prompts
            names = [(k, text) for k, text in enumerate(prompts.texts, 1)]
            self._log(root, self._rerun.AnnotationContext(names))

    def _log(self, path: list[str], what: Any) -> None:
        try:
            self.recording.log(path, what, strict=True)
        except Exception as error:  # an error of the library may be of any kind
            raise SinkError(f"rerun does not take {'/'.join(path)}: {error}") from error

    def close(self) -> None:
        self.recording.flush(timeout_sec=5.0)
        self.recording.disconnect()


def _labels(result: FrameResult) -> list[str]:
    found, tracks = result.instances, result.instances.track_ids
    ids = [0] * len(found) if tracks is None else tracks.tolist()
    return [
        f"{result.prompts[prompt].text} {score:.2f}{f' #{track}' if track > 0 else ''}"
        for prompt, score, track in zip(
            found.prompt_ids.tolist(), found.scores.tolist(), ids, strict=True
        )
    ]


class RerunFileSink(FileSink):
    """Writes `out.rrd`.

    Args:
        spec: The file.
        overwrite: Replace an older one.
    """

    def __enter__(self) -> Self:
        """Make the file.

        Raises:
            PluginError: rerun is not installed.
            SinkError: the file cannot be made.
        """
        self._log = _Log()
        self.file.open()
        self._log.recording.save(self.file.part)
        return self

    def write(self, result: FrameResult) -> None:
        """Write one result."""
        self._log.write(result)

    def close(self, error: BaseException | None = None) -> None:
        """Finish the file."""
        with self.file.finishing(whole=is_whole(error)):
            self._log.close()


class RerunSink(Closing):
    """Shows results in a viewer of rerun.

    Args:
        spec: `rerun:` opens a viewer; `rerun:HOST:PORT` sends to one that runs there.

    Raises:
        ConfigError: it is no such address.
    """

    def __init__(self, spec: str) -> None:
        self.name = spec
        self._address = spec.removeprefix("rerun:")
        host, colon, port = self._address.rpartition(":")
        if self._address and not (host and colon and port.isdecimal()):
            raise ConfigError(f"{spec!r}: give rerun:HOST:PORT, or rerun: to open a viewer")

    def __enter__(self) -> Self:
        """Open a viewer, or connect to one; the library tries again while it is away.

        Raises:
            PluginError: rerun is not installed.
            SinkError: no viewer can be opened.
        """
        self._log = _Log()
        try:
            if self._address:
                self._log.recording.connect_grpc(f"rerun+http://{self._address}/proxy")
            else:
                self._log.recording.spawn()
        except Exception as error:  # an error of the library may be of any kind
            raise SinkError(f"{self.name} cannot be used: {error}") from error
        return self

    def write(self, result: FrameResult) -> None:
        """Send one result."""
        self._log.write(result)

    def close(self, error: BaseException | None = None, /) -> None:
        """Send what is left."""
        del error
        self._log.close()
