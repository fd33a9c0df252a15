"""COCO panoptic, https://cocodataset.org/#format-data: a json and PNGs.

Files: `annotations/panoptic_default.json`, `annotations/panoptic_default/<video>/<frame>.png`. A
pixel is red + 256 green + 65536 blue: the id of a segment, 0 for none. The ids of an image count
from 1. All regions of a stuff prompt are one segment. Where regions overlap, the small one is on
top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ape_stream import masks
from ape_stream.formats.layouts.coco import categories, info
from ape_stream.formats.records import record_values
from ape_stream.formats.shapes import flatten
from ape_stream.formats.spool import ListSpool, write_document
from ape_stream.formats.writer import Layout

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ape_stream.formats.records import JobRecord, VideoRecord
    from ape_stream.formats.writer import Image, Losses, Region

__all__ = ["Panoptic"]


class Panoptic(Layout):
    """The layout of COCO panoptic."""

    images_in = "images"

    def __init__(self, folder: Path, job: JobRecord, losses: Losses) -> None:
        super().__init__(folder, job, losses)
        self._videos: list[dict[str, Any]] = []
        self._images = self.keep(ListSpool(folder))
        self._annotations = self.keep(ListSpool(folder))

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """Number the video."""
        del folder
        self._videos.append({"id": len(self._videos) + 1, **record_values(video)})

    def frame(self, image: Image) -> None:
        """Write the image's PNG and spool its segments."""
        record = image.record
        height, width = record.size
        name = {"id": image.id, "file_name": record.image, "width": width, "height": height}
        self._images.add({**name, "frame_index": record.frame, "video_id": len(self._videos)})
        segments: dict[tuple[int, int], int] = {}  # of stuff, all regions are one
        ids = [segments.setdefault(self._key(r), len(segments) + 1) for r in image.regions]
        painted = flatten(image, ids, self.losses)
        pixels = masks.id_pixels(painted)
        self.write_png(f"annotations/panoptic_default/{image.path}.png", pixels)
        entries = [
            _segment(
                painted, number, [r for n, r in zip(ids, image.regions, strict=True) if n == number]
            )
            for number in segments.values()
        ]
        seen = [entry for entry in entries if entry["area"]]
        value = {"image_id": image.id, "file_name": f"{image.path}.png", "segments_info": seen}
        self._annotations.add(value)

    def _key(self, region: Region) -> tuple[int, int]:
        stuff = self.job.prompts[region.category_id - 1].stuff
        return (region.category_id, 0) if stuff else (0, region.id)

    def finish(self) -> None:
        """Write the document."""
        kinds = [{"isthing": int(not prompt.stuff)} for prompt in self.job.prompts]
        names = [
            {**category, **kind, "supercategory": category["name"]}
            for category, kind in zip(categories(self.job), kinds, strict=True)
        ]
        values = {
            "info": info(self.job),
            "licenses": [],
            "categories": names,
            "videos": self._videos,
            "images": self._images,
            "annotations": self._annotations,
        }
        write_document(self.file("annotations/panoptic_default.json"), values)


def _segment(painted: NDArray[np.uint16], number: int, regions: list[Region]) -> dict[str, Any]:
    """What is seen of a segment that these regions make."""
    boxes = masks.boxes([region.mask for region in regions if region.mask is not None]).astype(int)
    left, top = boxes[:, :2].min(0).tolist()
    right, bottom = boxes[:, 2:].max(0).tolist()
    mask = masks.crop(painted[top:bottom, left:right] == number)
    x1, y1, x2, y2 = masks.box(mask)
    return {
        "id": number,
        "category_id": regions[0].category_id,
        "area": masks.area(mask),
        "bbox": [left + x1, top + y1, x2 - x1, y2 - y1],
        "iscrowd": 0,
        "score": max(region.record.score for region in regions),
        "track_id": regions[0].record.track_id,
    }
