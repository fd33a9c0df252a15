"""COCO panoptic: a PNG per frame whose pixels are segment ids, and one json that lists segments.

https://cocodataset.org/#format-data: the id of a pixel is red + 256 green + 65536 blue;
`categories` say which are things (`isthing`), `annotations` hold `segments_info` of each image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ape_stream import masks
from ape_stream.files import is_whole
from ape_stream.sinks.coco import image_entry, info, write_document
from ape_stream.sinks.jsonl import whole_lines
from ape_stream.sinks.labels import LEGEND, LabelsSink

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_stream.types import FrameResult, MapKind

__all__ = ["DOCUMENT", "PanopticSink", "write_panoptic"]

DOCUMENT = "panoptic.json"


class PanopticSink(LabelsSink):
    """Writes `<folder>/<stream>/<frame>.png`, `<folder>/legend.jsonl` and `<folder>/panoptic.json`.

    The legend has a line per frame while the run goes on; the document is made of it at the end.
    The rest is as in `LabelsSink`.
    """

    maps: frozenset[MapKind] = frozenset({"panoptic"})

    def __init__(self, spec: str, *, overwrite: bool = False) -> None:
        super().__init__(spec, overwrite=overwrite)
        self._images = 0
        self._categories: dict[str, int] = {}  # ids from 1, by text

    def _pixels(self, result: FrameResult) -> NDArray[Any]:
        return masks.id_pixels(result.panoptic().ids)

    def _legend_of(self, result: FrameResult, name: str) -> dict[str, Any]:
        self._images += 1
        found = result.panoptic()
        new = self._new_categories(result)
        boxes = masks.segment_boxes(found.ids)
        segments = [
            {
                "id": segment.id,
                "category_id": self._categories[result.prompts[segment.prompt_id].text],
                "area": segment.area,
                "bbox": list(boxes[segment.id]),
                "iscrowd": 0,
                "score": round(segment.score, 4),
            }
            for segment in found.segments
        ]
        annotation = {"image_id": self._images, "file_name": name, "segments_info": segments}
        return {
            "image": image_entry(result, self._images),
            "categories": new,
            "annotations": [annotation],
        }

    def _new_categories(self, result: FrameResult) -> list[dict[str, Any]]:
        stuff, new = result.panoptic().stuff, []
        for prompt, is_stuff in zip(result.prompts, stuff, strict=True):
            if prompt.text not in self._categories:
                number = self._categories[prompt.text] = len(self._categories) + 1
                name = {"name": prompt.text, "supercategory": prompt.text}
                new.append({"id": number, **name, "isthing": int(not is_stuff)})
        return new

    def close(self, error: BaseException | None = None) -> None:
        """Move what was written to its folder, and write the document there."""
        super().close(error)
        if is_whole(error):
            write_panoptic(self.folder, error)


def write_panoptic(folder: Path, error: BaseException | None) -> None:
    """Make the document of a folder's legend; nothing happens where it is of other maps.

    Args:
        folder: With whole label maps.
        error: Why results are missing, or None.

    Raises:
        SinkError: it cannot be written.
    """
    legend = folder / LEGEND
    if legend.is_file() and all("annotations" in line for line in whole_lines(legend)):
        write_document(folder / DOCUMENT, lambda: whole_lines(legend), info(error))
