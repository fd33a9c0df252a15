"""COCO json (detection results with images and categories), with track ids.

The COCO data format, https://cocodataset.org/#format-data: `info`, `categories`, `images` and
`annotations` with `bbox` [x, y, w, h], compressed RLE `segmentation` (an empty
list where there are boxes only), `area`, `score`, and beyond
the format `track_id`, `frame_index`, `time_s` and `stream`.

A json document is whole only at its end, so frames go to `<name>.part` as they come, a line each;
closing turns that into the document. After a kill the part still holds every frame, and
`ape-stream recover` makes the document from it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import IO, TYPE_CHECKING, Any, Self

from ape_stream import masks
from ape_stream.errors import SinkError
from ape_stream.files import is_whole, written
from ape_stream.sinks.file_sink import FileSink
from ape_stream.sinks.jsonl import LineFile, instance_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ape_stream.types import FrameResult

__all__ = ["CocoSink", "image_entry", "info", "package_version", "write_document"]


class CocoSink(FileSink):
    """Writes one COCO json document for all frames of all streams.

    Args:
        spec: The file.
        overwrite: Replace an older one, when the run ends.

    Raises:
        ConfigError: the file exists, or another run writes it.
        SinkError: the file cannot be made, or the disk is full.
    """

    def __init__(self, spec: str, *, overwrite: bool = False) -> None:
        super().__init__(spec, overwrite=overwrite)
        self._images = 0
        self._annotations = 0
        self._categories: dict[str, int] = {}  # ids from 1, by text

    def __enter__(self) -> Self:
        """Open the part."""
        if self.file.direct:  # lines are read again for the document
            raise SinkError(f"cannot write {self.file.path}: COCO json needs a file; use .jsonl")
        self.file.open()
        self._lines = LineFile(self.file.part, self.file.stream("w"))
        return self

    def write(self, result: FrameResult) -> None:
        """Append one frame, also where nothing was found.

        Raises:
            SinkError: it cannot be written.
        """
        self._images += 1
        line: dict[str, Any] = {"image": image_entry(result, self._images)}
        # With the first frame that has them: prompts may change while the run goes on.
        if new := self._new_categories(result):
            line["categories"] = new
        line["annotations"] = self._regions(result)
        self._lines.write(line)

    def _new_categories(self, result: FrameResult) -> list[dict[str, Any]]:
        new = [text for text in result.prompts.texts if text not in self._categories]
        for text in new:
            self._categories[text] = len(self._categories) + 1
        return [{"id": self._categories[text], "name": text} for text in new]

    def _regions(self, result: FrameResult) -> list[dict[str, Any]]:
        regions = []
        found = result.instances
        for index, record in enumerate(instance_records(result)):
            self._annotations += 1
            x1, y1, x2, y2 = record["box"]
            width, height = round(x2 - x1, 2), round(y2 - y1, 2)
            boxed = round(width * height, 2)
            regions.append(
                {
                    "id": self._annotations,
                    "image_id": self._images,
                    "category_id": self._categories[record["prompt"]],
                    "bbox": [x1, y1, width, height],
                    "area": boxed if found.masks is None else masks.area(found.masks[index]),
                    "segmentation": record["mask"] or [],  # as data sets of boxes have it
                    "iscrowd": 0,
                    "score": record["score"],
                    "track_id": record["track_id"],
                }
            )
        return regions

    def close(self, error: BaseException | None = None) -> None:
        """Turn the part into the document; a run that was cut short leaves the part."""
        whole = is_whole(error)
        with self.file.finishing(whole=whole):
            self._lines.close()
            if whole:
                # The document takes the final name; of the part nothing is left to be renamed.
                write_document(self.file.path, lambda: _read(self.file.part), info(error))
                with written(self.file.part):
                    self.file.part.unlink()


def image_entry(result: FrameResult, number: int) -> dict[str, Any]:
    """An entry of `images`, with this id."""
    frame = result.frame
    height, width = frame.size
    return {
        "id": number,
        "file_name": frame.origin or f"{frame.stream}/{frame.index:06d}",
        "width": width,
        "height": height,
        "frame_index": frame.index,
        "time_s": round(frame.time_s, 6),
        "stream": frame.stream,
    }


def package_version() -> str:
    """The version of ape_stream."""
    try:
        return version("ape-stream")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"


def info(error: BaseException | None) -> dict[str, Any]:
    """The document's `info`: who wrote it when, and why it is partial if it is."""
    about: dict[str, Any] = {
        "description": "ape_stream results",
        "version": package_version(),
        "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
        "partial": error is not None,
    }
    return about if error is None else {**about, "reason": " ".join(str(error).split())}


def write_document(
    path: Path, frames: Callable[[], Iterable[dict[str, Any]]], about: dict[str, Any]
) -> None:
    """Write a whole document and then replace the file by it.

    Args:
        path: The file.
        frames: Gives the lines of the part from the first on, each time it is called: a long
            video's results need not fit in memory.
        about: The document's `info`.

    Raises:
        SinkError: it cannot be written.
    """
    # Not `.part`: that is what `frames` reads meanwhile.
    whole = path.with_name(f"{path.name}.new")
    with written(whole):
        with whole.open("w", encoding="utf-8") as document:
            document.write('{"info": ' + json.dumps(about, ensure_ascii=False))
            # One pass over the part for each list, so that none has to fit in memory.
            for key in ("categories", "images", "annotations"):
                document.write(f',\n"{key}": [')
                _write_list(document, _items(frames(), key))
                document.write("]")
            document.write("}\n")
        whole.replace(path)


def _items(frames: Iterable[dict[str, Any]], key: str) -> Iterator[dict[str, Any]]:
    for frame in frames:
        yield from [frame["image"]] if key == "images" else frame.get(key, [])


def _read(part: Path) -> Iterator[dict[str, Any]]:
    with part.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _write_list(document: IO[str], items: Iterable[dict[str, Any]]) -> None:
    for index, item in enumerate(items):
        document.write((",\n" if index else "\n") + json.dumps(item, ensure_ascii=False))
