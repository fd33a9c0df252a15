"""A table, `instances.csv` (RFC 4180, UTF-8): one row an instance, the mask as COCO run lengths."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from ape_stream.formats.writer import Layout

if TYPE_CHECKING:
    from pathlib import Path

    from ape_stream.formats.records import JobRecord
    from ape_stream.formats.writer import Image, Losses

__all__ = ["Csv"]

COLUMNS = (
    *("video", "frame", "time_s", "pts", "image", "width", "height"),
    *("instance", "track_id", "category_id", "prompt", "score"),
    *("x1", "y1", "x2", "y2", "area", "rle"),
)


class Csv(Layout):
    """The layout of the table."""

    def __init__(self, folder: Path, job: JobRecord, losses: Losses) -> None:
        super().__init__(folder, job, losses)
        self._stream = self.open_text("instances.csv")
        self._rows = csv.writer(self._stream, lineterminator="\n")
        self._rows.writerow(COLUMNS)

    def frame(self, image: Image) -> None:
        """Append a row for each region; a frame without any has none."""
        frame = image.record
        height, width = frame.size
        about = (frame.stream, frame.frame, frame.time_s, frame.pts, frame.image, width, height)
        for region in image.regions:
            record = region.record
            which = (region.id, record.track_id, region.category_id, record.prompt, record.score)
            counts = None if record.mask is None else record.mask.counts
            self._rows.writerow((*about, *which, *record.box, region.area, counts))

    def finish(self) -> None:
        """End the file."""
        self._stream.close()
