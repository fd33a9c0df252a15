"""COCO instances, https://cocodataset.org/#format-data, and the folder that FiftyOne imports.

`annotations/instances_default.json` has compressed run lengths: holes and parts are exact.
The same file in `polygons/` has the same annotations as polygons, for tools that edit outlines; a
polygon has no holes. A box without a mask has an empty `segmentation`. Beyond the format an
annotation has `score`, `track_id` and, as CVAT does, `attributes`; an image `frame_index`,
`time_s`, `pts` and `video_id`; the document `videos`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ape_stream.formats.records import record_values
from ape_stream.formats.shapes import edge_polygons
from ape_stream.formats.spool import ListSpool, write_document
from ape_stream.formats.writer import Layout

if TYPE_CHECKING:
    from pathlib import Path

    from ape_stream.formats.records import JobRecord, VideoRecord
    from ape_stream.formats.writer import Image, Losses, Region

__all__ = ["Coco", "CocoDocument", "FiftyOne", "categories", "info"]


def info(job: JobRecord) -> dict[str, Any]:
    """COCO's `info`: what made the results."""
    values = record_values(job)
    del values["prompts"]
    return {"description": "ape_stream results", **values}


def categories(job: JobRecord) -> list[dict[str, Any]]:
    """COCO's `categories`: the prompts, ids from 1."""
    return [{"id": k, "name": prompt.text} for k, prompt in enumerate(job.prompts, start=1)]


class CocoDocument:
    """A COCO document that grows image by image in temporary files.

    Args:
        layout: The layout that it is for.
    """

    def __init__(self, layout: Layout) -> None:
        self._videos: list[dict[str, Any]] = []
        self._images = layout.keep(ListSpool(layout.folder))
        self._annotations = layout.keep(ListSpool(layout.folder))

    def begin_video(self, video: VideoRecord) -> None:
        """Number a video."""
        self._videos.append({"id": len(self._videos) + 1, **record_values(video)})

    def add_image(self, image: Image) -> None:
        """Append an entry of `images`."""
        record = image.record
        entry = {
            "id": image.id,
            "file_name": record.image,
            "width": record.size[1],
            "height": record.size[0],
            "frame_index": record.frame,
            "time_s": record.time_s,
        }
        if record.pts is not None:
            entry["pts"] = record.pts
        self._images.add({**entry, "video_id": len(self._videos)})

    def add_region(self, image: Image, region: Region, segmentation: Any) -> None:
        """Append an entry of `annotations`."""
        record = region.record
        attributes = {"score": record.score}
        if record.track_id is not None:
            attributes["track_id"] = record.track_id
        self._annotations.add(
            {
                "id": region.id,
                "image_id": image.id,
                "category_id": region.category_id,
                "bbox": list(region.xywh),
                "area": region.area,
                "segmentation": segmentation,
                "iscrowd": 0,
                "score": record.score,
                "track_id": record.track_id,
                "attributes": attributes,
            }
        )

    def write(self, path: Path, job: JobRecord) -> None:
        """Write the whole document, once."""
        values = {
            "info": info(job),
            "licenses": [],
            "categories": categories(job),
            "videos": self._videos,
            "images": self._images,
            "annotations": self._annotations,
        }
        write_document(path, values)


class FiftyOne(Layout):
    """One document with run lengths, `labels.json`."""

    images_in = "data"

    name = "labels.json"

    def __init__(self, folder: Path, job: JobRecord, losses: Losses) -> None:
        super().__init__(folder, job, losses)
        self._document = CocoDocument(self)

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """Number the video."""
        del folder
        self._document.begin_video(video)

    def frame(self, image: Image) -> None:
        """Spool an image and its annotations."""
        self._document.add_image(image)
        for region in image.regions:
            self._document.add_region(image, region, region.rle or [])

    def finish(self) -> None:
        """Write the document."""
        self._document.write(self.file(self.name), self.job)


class Coco(FiftyOne):
    """Two documents, one with run lengths and one with polygons."""

    images_in = "images"

    name = "annotations/instances_default.json"

    def __init__(self, folder: Path, job: JobRecord, losses: Losses) -> None:
        super().__init__(folder, job, losses)
        self._outlined = CocoDocument(self)

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """Number the video."""
        super().begin_video(video, folder)
        self._outlined.begin_video(video)

    def frame(self, image: Image) -> None:
        """Spool an image and its annotations, twice."""
        super().frame(image)
        self._outlined.add_image(image)
        for region in image.regions:
            if region.mask is None:
                self._outlined.add_region(image, region, [])
                continue
            parts = edge_polygons(region.mask)
            if not parts:
                self.losses.add("empty masks (in the file with polygons)")
                continue
            self.losses.add("holes (in the file with polygons)", sum(len(p.holes) for p in parts))
            outlines = [part.outer.ravel().tolist() for part in parts]
            self._outlined.add_region(image, region, outlines)

    def finish(self) -> None:
        """Write both documents."""
        super().finish()
        self._outlined.write(self.file("polygons/annotations/instances_default.json"), self.job)
