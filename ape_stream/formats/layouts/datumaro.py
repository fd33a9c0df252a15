"""Datumaro's own format, version 1.0: `annotations/<video>.json`, a subset for each video.

Source: https://open-edge-platform.github.io/datumaro, "Datumaro format".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ape_stream.formats.records import record_values
from ape_stream.formats.spool import to_json
from ape_stream.formats.writer import Layout, flat_name

if TYPE_CHECKING:
    from ape_stream.formats.records import VideoRecord
    from ape_stream.formats.writer import Image, Region

__all__ = ["Datumaro"]


class Datumaro(Layout):
    """The layout of Datumaro."""

    images_in = "images"

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """Start the video's file."""
        del video
        labels = [{"name": p.text, "parent": "", "attributes": []} for p in self.job.prompts]
        head = {
            "dm_format_version": "1.0",
            "media_type": 2,  # images
            "infos": {"job": record_values(self.job)},  # datumaro wants the same in all subsets
            "categories": {"label": {"labels": labels, "attributes": ["score", "track_id"]}},
        }
        name = f"annotations/{flat_name(folder)}.json"
        self._stream = self.open_text(name)
        self._stream.write(to_json(head)[:-1] + ', "items": [')
        self._separator = "\n"

    def frame(self, image: Image) -> None:
        """Append the image as an item."""
        record = image.record
        values = {
            "id": image.path,
            "annotations": [_annotation(region) for region in image.regions],
            "attr": {"frame": record.frame, "time_s": record.time_s},
            "image": {"path": record.image, "size": list(record.size)},
        }
        self._stream.write(self._separator + to_json(values))
        self._separator = ",\n"

    def end_video(self) -> None:
        """End the file."""
        self._stream.write("\n]}\n")
        self._stream.close()


def _annotation(region: Region) -> dict[str, Any]:
    record = region.record
    attributes = {"score": record.score}
    if record.track_id is not None:
        attributes["track_id"] = record.track_id
    return {
        "id": region.id,
        "type": "mask" if record.mask is not None else "bbox",
        "attributes": attributes,
        "group": region.id,
        **({} if record.track_id is None else {"object_id": record.track_id}),
        "label_id": region.category_id - 1,
        **({"bbox": list(region.xywh)} if region.rle is None else {"rle": region.rle}),
        "z_order": 0,
    }
