"""COCO panoptic, https://cocodataset.org/#format-data: `annotations/panoptic.json` and PNGs.

A pixel of `annotations/panoptic/<video>/<frame>.png` is red + 256 green + 65536 blue: the id of a
segment, 0 for none. The ids of an image count from 1. All regions of a stuff prompt are one
segment. Where regions overlap, the small one is on top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ape_stream.formats.layouts.coco import categories, info
from ape_stream.formats.records import record_values
from ape_stream.formats.shapes import flatten
from ape_stream.formats.spool import ListSpool, write_document
from ape_stream.formats.writer import Layout

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_stream.formats.records import JobRecord, VideoRecord
    from ape_stream.formats.writer import Image, Losses, Region

__all__ = ["Panoptic"]


class Panoptic(Layout):
    """The layout of COCO panoptic."""

    def __init__(self, folder: Path, job: JobRecord, losses: Losses) -> None:
        super().__init__(folder, job, losses)
        self._videos: list[dict[str, Any]] = []
        self._images = ListSpool(folder)
        self._annotations = ListSpool(folder)

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
        parts = (painted & 0xFF, painted >> 8, np.zeros_like(painted))
        self.write_png(f"annotations/panoptic/{image.path}.png", np.dstack(parts).astype(np.uint8))
        first = dict(zip(ids[::-1], image.regions[::-1], strict=True))
        entries = _segments(painted, first)
        value = {"image_id": image.id, "file_name": f"{image.path}.png", "segments_info": entries}
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
        write_document(self.file("annotations/panoptic.json"), values)


def _segments(painted: NDArray[np.uint16], regions: dict[int, Region]) -> list[dict[str, Any]]:
    """What is seen of each segment; one that others cover is not in the image."""
    entries = []
    areas = np.bincount(painted.ravel(), minlength=max(regions, default=0) + 1)
    for number in sorted(regions):
        if not areas[number]:
            continue
        rows, columns = np.nonzero(painted == number)
        left, top = int(columns.min()), int(rows.min())
        entries.append(
            {
                "id": number,
                "category_id": regions[number].category_id,
                "area": int(areas[number]),
                "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
                "iscrowd": 0,
                "score": regions[number].record.score,
                "track_id": regions[number].record.track_id,
            }
        )
    return entries
