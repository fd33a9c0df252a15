"""YOLO, https://docs.ultralytics.com/datasets/: `labels/<split>/<video>_<frame>.txt`, `data.yaml`.

A row is a class, from 0, and a polygon, or a box where there is no mask or boxes are asked for, in
parts of the image's width and height. Images
belong into `images/<split>/`. A polygon is one ring: holes are kept by a seam, and parts are joined
by a line of one pixel, as in Ultralytics' own conversion. A point is a quarter of a pixel inside
its own: exact for readers that truncate to whole pixels (Ultralytics) or round (supervision).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from ape_stream import masks
from ape_stream.formats.shapes import seamed_ring
from ape_stream.formats.spool import to_json
from ape_stream.formats.writer import Layout, flat_name

if TYPE_CHECKING:
    from pathlib import Path

    from ape_stream.formats.records import JobRecord, VideoRecord
    from ape_stream.formats.writer import Image, Losses, Region

__all__ = ["YoloDetect", "YoloSegment"]


class YoloSegment(Layout):
    """The layout of YOLO segmentation."""

    def __init__(self, folder: Path, job: JobRecord, losses: Losses) -> None:
        super().__init__(folder, job, losses)
        self._splits: set[str] = set()

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """Make the folder of the video's split."""
        del folder
        self._split = video.split
        self._splits.add(video.split)

    def frame(self, image: Image) -> None:
        """Write the image's file, empty where nothing was found."""
        height, width = image.record.size
        rows = []
        for region in image.regions:
            self.losses.add("track ids", region.record.track_id is not None)
            numbers = self._numbers(region)
            if numbers is None:
                self.losses.add("empty masks")
                continue
            relative = (numbers / (width, height)).ravel().tolist()
            rows.append(" ".join([str(region.category_id - 1), *(f"{v:.6f}" for v in relative)]))
        path = f"labels/{self._split}/{flat_name(image.path)}.txt"
        self.write_text(path, "".join(row + "\n" for row in rows))

    def image_name(self, image: Image) -> str:
        """In the folder of the video's split."""
        suffix = PurePosixPath(image.record.image).suffix
        return f"images/{self._split}/{flat_name(image.path)}{suffix}"

    def _numbers(self, region: Region) -> np.ndarray[tuple[int, int], np.dtype[np.float64]] | None:
        """(K, 2) points of a row, pixels; None where there is nothing."""
        if region.mask is None:
            return _box(region)
        parts = masks.polygons(region.mask)
        if not parts:
            return None
        self.losses.add("gaps between parts, joined by a line", len(parts) - 1)
        ring = seamed_ring(parts, region.mask)
        # A row of less than three points would be read as a box.
        short = max(0, 3 - len(ring))
        return np.concatenate([ring, ring[-1:].repeat(short, 0)]) + 0.25

    def finish(self) -> None:
        """Write `data.yaml`."""
        names = "".join(f"  {k}: {to_json(p.text)}\n" for k, p in enumerate(self.job.prompts))
        # Training wants a validation set: without one it gets that for training.
        validation = "val" if "val" in self._splits else "train"
        splits = {"train": "train", "val": validation}
        if "test" in self._splits:
            splits["test"] = "test"
        lines = "".join(f"{key}: images/{split}\n" for key, split in splits.items())
        self.write_text("data.yaml", f"{lines}names:\n{names}")


class YoloDetect(YoloSegment):
    """The layout of YOLO detection."""

    def _numbers(self, region: Region) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        self.losses.add("masks", region.mask is not None)
        return _box(region)


def _box(region: Region) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Centre and size, pixels."""
    x1, y1, x2, y2 = region.record.box
    return np.array([[(x1 + x2) / 2, (y1 + y2) / 2], [x2 - x1, y2 - y1]])
