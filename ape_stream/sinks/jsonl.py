"""JSON Lines: one line per frame, flushed, so that a kill loses nothing that was written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from ape_stream import masks
from ape_stream.sinks.files import open_output, written

if TYPE_CHECKING:
    from types import TracebackType

    from ape_stream.types import FrameResult

__all__ = ["JsonlSink", "instance_records"]


def instance_records(result: FrameResult) -> list[dict[str, Any]]:
    """Every region of a frame as plain values.

    Keys: `prompt` (text), `prompt_id`, `score` (0..1), `box` ([x1, y1, x2, y2] pixels, x2 and y2
    exclusive), `mask` (COCO compressed RLE: `size` [height, width], `counts`), and `track_id`
    (from 1; null before confirmation).
    """
    found = result.instances
    records = []
    for index, mask in enumerate(found.masks):
        prompt_id = int(found.prompt_ids[index])
        track = 0 if found.track_ids is None else int(found.track_ids[index])
        rle = masks.encode_rle(mask, found.size)
        records.append(
            {
                "prompt": result.prompts[prompt_id].text,
                "prompt_id": prompt_id,
                "score": round(float(found.scores[index]), 5),
                "box": [round(float(v), 2) for v in found.boxes[index]],
                "track_id": track or None,
                "mask": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
            }
        )
    return records


class JsonlSink:
    """Writes `{"stream", "frame", "time_s", "size", "instances": [...]}` a line; see `README.md`.

    Args:
        spec: the file; it is replaced.

    Raises:
        SinkError: on entering, the file cannot be made; on writing, the disk is full.
    """

    def __init__(self, spec: str) -> None:
        self.path = spec

    def __enter__(self) -> Self:
        """Open the file."""
        self._file = open_output(self.path, "w")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Close the file."""
        with written(self.path):
            self._file.close()

    def write(self, result: FrameResult) -> None:
        """Append one frame, found or not, and flush it.

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
        if frame.origin is not None:
            line["file"] = frame.origin
        with written(self.path):
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()
