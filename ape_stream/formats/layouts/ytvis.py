"""YouTube-VIS, https://youtube-vos.org/dataset/vis/: masks by track, `annotations/instances.json`.

`videos` list their images in `file_names`; an annotation is one track, with a list of `bboxes`,
`areas` and `segmentations` as long as its video, null where the track is not
seen; `segmentations` also where it has no mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ape_stream import masks
from ape_stream.formats.layouts.coco import categories, info
from ape_stream.formats.records import record_values
from ape_stream.formats.spool import GroupSpool, ListSpool, to_json, write_document
from ape_stream.formats.writer import Layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ape_stream.formats.records import JobRecord, VideoRecord
    from ape_stream.formats.writer import Image, Losses

__all__ = ["Ytvis"]


class Ytvis(Layout):
    """The layout of YouTube-VIS."""

    images_in = "JPEGImages"

    def __init__(self, folder: Path, job: JobRecord, losses: Losses) -> None:
        super().__init__(folder, job, losses)
        self._videos = self.keep(ListSpool(folder))
        self._annotations = self.keep(ListSpool(folder))
        self._video_id = self._annotation_id = 0

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """Number the video."""
        del folder
        self._video_id += 1
        self._video = video
        self._names: list[str] = []
        # Of every track its areas, boxes and masks, at positions of the video.
        self._tracks = self.keep(GroupSpool(self.folder))
        self._best: dict[tuple[int, ...], float] = {}

    def frame(self, image: Image) -> None:
        """Spool what the frame adds to each track."""
        for region in image.regions:
            track_id = region.record.track_id
            if track_id is None:
                self.losses.add("regions without a track")
                continue
            key = (track_id, region.category_id)
            self._best[key] = max(self._best.get(key, 0.0), region.record.score)
            # As a list, which every reader of this format takes; of compressed ones only some do.
            mask = None
            if region.rle is not None:
                counts = masks.rle_run_lengths(region.rle).tolist()
                mask = {"size": list(image.record.size), "counts": counts}
            values = (region.area, list(region.xywh), mask)
            self._tracks.add(key, len(self._names), "\t".join(map(to_json, values)))
        self._names.append(image.record.image)

    def end_video(self) -> None:
        """Write the video and its tracks."""
        video = self._video
        values = {
            **record_values(video),
            "id": self._video_id,
            "length": len(self._names),
            "file_names": self._names,
        }
        self._videos.add(values)
        for key in self._tracks:
            self._annotation_id += 1
            self._annotations.add_parts(self._annotation(key))
        self._tracks.close()

    def _annotation(self, key: tuple[int, ...]) -> Iterator[str]:
        """The annotation of one track as pieces of JSON: as a whole it may not fit in memory."""
        head: dict[str, Any] = {
            "id": self._annotation_id,
            "video_id": self._video_id,
            "track_id": key[0],
            "category_id": key[1],
            "iscrowd": 0,
            "width": self._video.width,
            "height": self._video.height,
            "length": len(self._names),
            "score": self._best[key],
        }
        yield to_json(head)[:-1]
        for column, name in enumerate(("areas", "bboxes", "segmentations")):
            yield f', "{name}": ['
            yield from self._list(key, column)
            yield "]"
        yield "}"

    def _list(self, key: tuple[int, ...], column: int) -> Iterable[str]:
        position = 0
        for at, text in self._tracks.items(key):
            # Absent before it, then its own value.
            values = ["null"] * (at - position) + [text.split("\t")[column]]
            yield ("" if position == 0 else ", ") + ", ".join(values)
            position = at + 1
        rest = ["null"] * (len(self._names) - position)
        if rest:
            yield ", " + ", ".join(rest)

    def finish(self) -> None:
        """Write the document."""
        values = {
            "info": info(self.job),
            "licenses": [],
            "categories": categories(self.job),
            "videos": self._videos,
            "annotations": self._annotations,
        }
        write_document(self.file("annotations/instances.json"), values)
