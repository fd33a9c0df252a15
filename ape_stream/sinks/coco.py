"""COCO json (detection results with pictures and categories), with track ids.

The COCO data format, https://cocodataset.org/#format-data: `images`, `categories` and
`annotations` with `bbox` [x, y, w, h], compressed RLE `segmentation`, `area`, `score`, and beyond
the format `track_id`, `frame_index`, `time_s` and `stream`.

A json document is whole only at its end, so frames go to `<name>.part` as they come, a line each;
closing turns that into the document. After a kill the `.part` file still holds every frame.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from ape_stream import masks
from ape_stream.sinks.files import open_output, written
from ape_stream.sinks.jsonl import instance_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from ape_stream.types import FrameResult

__all__ = ["CocoSink"]


class CocoSink:
    """Writes one COCO json document for all frames of all streams.

    Args:
        spec: the file; it is replaced when the run ends.

    Raises:
        SinkError: the file cannot be made, or the disk is full.
    """

    def __init__(self, spec: str) -> None:
        self.path = Path(spec)
        self.part = self.path.with_name(self.path.name + ".part")
        self._images = 0
        self._annotations = 0
        self._categories: dict[str, int] = {}

    def __enter__(self) -> Self:
        """Open the part file."""
        self._lines = open_output(self.part, "w")
        return self

    def write(self, result: FrameResult) -> None:
        """Append one frame, found or not.

        Raises:
            SinkError: it cannot be written.
        """
        self._images += 1
        for prompt in result.prompts:
            self._categories.setdefault(prompt.text, len(self._categories) + 1)
        line = {"image": self._image(result), "annotations": self._regions(result)}
        with written(self.part):
            self._lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._lines.flush()

    def _image(self, result: FrameResult) -> dict[str, Any]:
        frame = result.frame
        height, width = frame.size
        return {
            "id": self._images,
            "file_name": frame.origin or f"{frame.stream}/{frame.index:06d}",
            "width": width,
            "height": height,
            "frame_index": frame.index,
            "time_s": round(frame.time_s, 6),
            "stream": frame.stream,
        }

    def _regions(self, result: FrameResult) -> list[dict[str, Any]]:
        regions = []
        for record, mask in zip(instance_records(result), result.instances.masks, strict=True):
            self._annotations += 1
            x1, y1, x2, y2 = record["box"]
            regions.append(
                {
                    "id": self._annotations,
                    "image_id": self._images,
                    "category_id": self._categories[record["prompt"]],
                    "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
                    "area": masks.area(mask),
                    "segmentation": record["mask"],
                    "iscrowd": 0,
                    "score": record["score"],
                    "track_id": record["track_id"],
                }
            )
        return regions

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Turn what was written into the document, also when the run failed."""
        with written(self.part):
            self._lines.close()
        whole = self.path.with_name(self.path.name + ".new")
        with open_output(whole, "w") as document, written(whole):
            self._assemble(document)
        with written(self.path):
            whole.replace(self.path)
            self.part.unlink()

    def _assemble(self, document: IO[str]) -> None:
        """Copy frame by frame: a long video's results need not fit in memory."""
        categories = [{"id": number, "name": name} for name, number in self._categories.items()]
        document.write('{"categories": ' + json.dumps(categories, ensure_ascii=False))
        document.write(',\n"images": [')
        _write_list(document, (frame["image"] for frame in self._frames()))
        document.write('],\n"annotations": [')
        _write_list(document, (one for frame in self._frames() for one in frame["annotations"]))
        document.write("]}\n")

    def _frames(self) -> Iterator[dict[str, Any]]:
        with self.part.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _write_list(document: IO[str], items: Iterable[dict[str, Any]]) -> None:
    for index, item in enumerate(items):
        document.write((",\n" if index else "\n") + json.dumps(item, ensure_ascii=False))
