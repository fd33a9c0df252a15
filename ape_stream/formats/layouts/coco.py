"""COCO instances, https://cocodataset.org/#format-data.

Files: `annotations/instances.json` with compressed run lengths, `images` named as in the records.
Beyond the format an annotation has `score`, `track_id` and CVAT's `attributes.track_id`; an image
`frame_index`, `time_s`, `pts` and `video_id`; the document `videos`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ape_stream.formats.records import record_values
from ape_stream.formats.spool import ListSpool, write_document

if TYPE_CHECKING:
    from pathlib import Path

    from ape_stream.formats.records import JobRecord, VideoRecord
    from ape_stream.formats.writer import Image, Losses, Region

__all__ = ["Coco", "categories", "image_entry", "info"]


def info(job: JobRecord) -> dict[str, Any]:
    """COCO's `info`: what made the results."""
    values = record_values(job)
    del values["prompts"]
    return {"description": "ape_stream results", **values}


def categories(job: JobRecord) -> list[dict[str, Any]]:
    """COCO's `categories`: the prompts, ids from 1."""
    return [{"id": k, "name": prompt.text} for k, prompt in enumerate(job.prompts, start=1)]


def image_entry(image: Image, video_id: int) -> dict[str, Any]:
    """An entry of COCO's `images`."""
    record = image.record
    return {
        "id": image.id,
        "file_name": record.image,
        "width": record.size[1],
        "height": record.size[0],
        "frame_index": record.frame,
        "time_s": record.time_s,
        **({} if record.pts is None else {"pts": record.pts}),
        "video_id": video_id,
    }


def _annotation(image: Image, region: Region) -> dict[str, Any]:
    record = region.record
    return {
        "id": region.id,
        "image_id": image.id,
        "category_id": region.category_id,
        "bbox": list(region.xywh),
        "area": region.area,
        "segmentation": {"size": list(record.mask.size), "counts": record.mask.counts},
        "iscrowd": 0,
        "score": record.score,
        "track_id": record.track_id,
        "attributes": {} if record.track_id is None else {"track_id": record.track_id},
    }


class Coco:
    """The layout of COCO instances."""

    def __init__(self, folder: Path, job: JobRecord, losses: Losses) -> None:
        self._folder, self._job, self._losses = folder, job, losses
        self._videos: list[dict[str, Any]] = []
        self._images = ListSpool(folder)
        self._annotations = ListSpool(folder)

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """Number the video."""
        del folder
        self._videos.append({"id": len(self._videos) + 1, **record_values(video)})

    def frame(self, image: Image) -> None:
        """Spool an image and its annotations."""
        self._images.add(image_entry(image, len(self._videos)))
        for region in image.regions:
            self._annotations.add(_annotation(image, region))

    def end_video(self) -> None:
        """Nothing ends with a video."""

    def finish(self) -> None:
        """Write the document."""
        path = self._folder / "annotations"
        path.mkdir()
        write_document(
            path / "instances.json",
            {
                "info": info(self._job),
                "categories": categories(self._job),
                "videos": self._videos,
                "images": self._images,
                "annotations": self._annotations,
            },
        )
