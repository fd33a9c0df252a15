"""MOT Challenge and MOTS text, https://motchallenge.net/instructions/.

Both: `<video>/gt/gt.txt`, `<video>/gt/labels.txt` with a category a line and `<video>/seqinfo.ini`;
frames count from 1. A line is `frame, id, left, top, width, height, score, category, visibility` in
MOT, and `frame id category height width counts` in MOTS, where masks do not overlap.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ape_stream import masks
from ape_stream.formats.shapes import visible_masks
from ape_stream.formats.writer import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ape_stream.formats.records import VideoRecord
    from ape_stream.formats.writer import Image

__all__ = ["Mot", "Mots"]


class Mot(Layout):
    """The layout of MOT Challenge."""

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """Start the video's file."""
        self._video, self._stem, self._last = video, folder, -1
        self._suffix = ".jpg"
        self._stream = self.open_text(f"{folder}/gt/gt.txt")

    def frame(self, image: Image) -> None:
        """Append the lines of the frame."""
        self._last = image.record.frame
        self._suffix = PurePosixPath(image.record.image).suffix
        untracked = sum(region.record.track_id is None for region in image.regions)
        self.losses.add("regions without a track", untracked)
        self._stream.writelines(self._lines(image))

    def image_name(self, image: Image) -> str:
        """Next to the video's boxes, from 1."""
        return f"{self._stem}/img1/{image.record.frame + 1:06d}{self._suffix}"

    def _lines(self, image: Image) -> Iterator[str]:
        for region in image.regions:
            if (track_id := region.record.track_id) is not None:
                self.losses.add("masks", region.mask is not None)
                values = (track_id, *region.xywh, region.record.score, region.category_id, 1)
                yield ",".join(map(str, (image.record.frame + 1, *values))) + "\n"

    def end_video(self) -> None:
        """End the file, and write what describes it."""
        self._stream.close()
        labels = "".join(f"{prompt.text}\n" for prompt in self.job.prompts)
        self.write_text(f"{self._stem}/gt/labels.txt", labels)
        video = self._video
        values = {
            "name": video.name,
            "imDir": "img1",
            "frameRate": round(video.rate[0] / video.rate[1]) if video.rate else None,
            "seqLength": video.frames or self._last + 1,
            "imWidth": video.width,
            "imHeight": video.height,
            "imExt": self._suffix,
        }
        lines = "".join(f"{key}={value}\n" for key, value in values.items() if value is not None)
        self.write_text(f"{self._stem}/seqinfo.ini", f"[Sequence]\n{lines}")


class Mots(Mot):
    """The layout of MOTS."""

    def _lines(self, image: Image) -> Iterator[str]:
        size = image.record.size
        for region, mask in zip(image.regions, visible_masks(image, self.losses), strict=True):
            track_id = region.record.track_id
            if track_id is None or not mask.bitmap.size:
                continue
            # Category 10 is MOTS' own: regions that do not count.
            category = region.category_id + (region.category_id >= 10)
            counts = masks.encode_rle(mask, size)["counts"].decode()
            yield f"{image.record.frame + 1} {track_id} {category} {size[0]} {size[1]} {counts}\n"
