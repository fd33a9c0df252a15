"""JSON Lines: one line per frame, flushed, so that a kill loses nothing that was written."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any, Self

from ape_stream import masks
from ape_stream.depth import lift, quaternion
from ape_stream.files import is_whole, written
from ape_stream.sinks.file_sink import FileSink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ape_stream.types import FrameResult, Mask

__all__ = ["JsonlSink", "LineFile", "box_records", "instance_records", "whole_lines"]


def instance_records(result: FrameResult) -> list[dict[str, Any]]:
    """Every region of a frame as plain values.

    Keys: `prompt` (text), `prompt_id`, `score` (0..1), `box` ([x1, y1, x2, y2] pixels, x2 and y2
    exclusive), `mask` (COCO compressed RLE: `size` [height, width], `counts`; null from a
    model that gives boxes only), and `track_id` (from 1; null before confirmation).
    """
    found = result.instances
    records = []
    for index in range(len(found)):
        prompt_id = int(found.prompt_ids[index])
        track = 0 if found.track_ids is None else int(found.track_ids[index])
        records.append(
            {
                "prompt": result.prompts[prompt_id].text,
                "prompt_id": prompt_id,
                "score": round(float(found.scores[index]), 5),
                "box": [round(float(v), 2) for v in found.boxes[index]],
                "track_id": track if track > 0 else None,
                "mask": None if found.masks is None else _rle(found.masks[index], found.size),
            }
        )
    return records


def _rle(mask: Mask, size: tuple[int, int]) -> dict[str, Any]:
    rle = masks.encode_rle(mask, size)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def box_records(result: FrameResult) -> list[dict[str, Any] | None]:
    """A box in space for each region, null where there is too little depth.

    Keys: `center`, `size` (metres) and `rotation` (quaternion x y z w) in the camera's frame (x
    right, y down, z forward); `distance`, `spread`: median depth and median absolute deviation,
    metres.
    """
    frame = result.frame
    if frame.depth is None:
        return [None] * len(result.instances)
    return [
        None
        if box is None
        else {
            "center": [round(float(v), 4) for v in box.center],
            "size": [round(float(v), 4) for v in box.size],
            "rotation": [round(v, 5) for v in quaternion(box.rotation)],
            "distance": round(box.distance, 4),
            "spread": round(box.spread, 4),
        }
        for box in lift(result.instances, frame.depth)
    ]


class LineFile:
    """Writes JSON values a line each, flushed.

    Args:
        path: The file, for messages.
        stream: A handle to it.
    """

    def __init__(self, path: Path, stream: IO[str]) -> None:
        self.path = path
        self._stream = stream

    def write(self, value: object) -> None:
        """Append a line.

        Raises:
            SinkError: the disk is full.
        """
        with written(self.path):
            self._stream.write(json.dumps(value, ensure_ascii=False) + "\n")
            # To the system, not to the disk (fsync): enough to survive a kill of this process.
            self._stream.flush()

    def close(self) -> None:
        """Close the file.

        Raises:
            SinkError: the disk is full.
        """
        with written(self.path):
            self._stream.close()


class JsonlSink(FileSink):
    """Writes `{"stream", "frame", "time_s", "size", "instances": [...]}` a line; see `README.md`.

    Where frames have depth, `boxes_3d` holds a box in space for each instance, or null.

    Args:
        spec: The file.
        overwrite: Replace an older one.

    Raises:
        ConfigError: the file exists, or another run writes it.
        SinkError: on entering, the file cannot be made; on writing, the disk is full.
    """

    def __enter__(self) -> Self:
        """Open the file."""
        self.file.open()
        self._lines = LineFile(self.file.part, self.file.stream("w"))
        return self

    def write(self, result: FrameResult) -> None:
        """Append one frame, also where nothing was found, and flush it.

        Raises:
            SinkError: the line cannot be written.
        """
        frame = result.frame
        line = {
            "stream": frame.stream,
            "frame": frame.index,
            "time_s": round(frame.time_s, 6),
            "size": list(frame.size),
            "instances": instance_records(result),
        }
        if frame.depth is not None:
            line["boxes_3d"] = box_records(result)
        if frame.origin is not None:
            line["file"] = frame.origin
        if frame.pts is not None and frame.time_base is not None:
            line["pts"] = frame.pts
            line["time_base"] = list(frame.time_base.as_integer_ratio())
        self._lines.write(line)

    def close(self, error: BaseException | None = None) -> None:
        """Close the file."""
        with self.file.finishing(whole=is_whole(error)):
            self._lines.close()


def whole_lines(part: Path) -> Iterator[dict[str, Any]]:
    """The lines of a part up to the first that was cut off."""
    # A line that was cut inside a character is no UTF-8; replaced, it fails as JSON below.
    with part.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                return
            if not line.endswith("\n") or not isinstance(value, dict):
                return
            yield value
