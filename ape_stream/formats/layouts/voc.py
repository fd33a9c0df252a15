"""Pascal VOC, http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html.

`Annotations/<video>_<frame>.xml` with boxes, `SegmentationObject/` and `SegmentationClass/` with
palette PNGs, `ImageSets/*/<split>.txt` with names. Boxes are whole pixels from 1, both ends inside.
In the maps of an image, object k is the k-th of its XML; where regions overlap, the small one is
on top. An image whose regions have no masks has an XML only.
"""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from ape_stream.formats.layouts.cvat import element, xml_text
from ape_stream.formats.shapes import COLOURS, flatten
from ape_stream.formats.writer import Layout, Losses, flat_name

if TYPE_CHECKING:
    from pathlib import Path

    from ape_stream.formats.records import InstanceRecord, JobRecord, VideoRecord
    from ape_stream.formats.writer import Image

__all__ = ["Voc"]

_MAX = 254
"""255 is VOC's value for pixels that do not count."""


class Voc(Layout):
    """The layout of Pascal VOC."""

    def __init__(self, folder: Path, job: JobRecord, losses: Losses) -> None:
        super().__init__(folder, job, losses)
        lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
        for k, prompt in enumerate(job.prompts[:_MAX], start=1):
            red, green, blue = COLOURS[3 * k : 3 * k + 3]
            lines.append(f"{prompt.text}:{red},{green},{blue}::")
        self.write_text("labelmap.txt", "\n".join(lines) + "\n")

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """Note the video's split."""
        del folder
        self._split = video.split

    def frame(self, image: Image) -> None:
        """Write the image's XML and maps, and its name into the lists."""
        name = flat_name(image.path)
        masked = all(region.mask is not None for region in image.regions)
        self.write_text(f"Annotations/{name}.xml", _document(image, masked=masked))
        for kind in ("Main", "Segmentation") if masked else ("Main",):
            with self.file(f"ImageSets/{kind}/{self._split}.txt").open("a", encoding="utf-8") as f:
                f.write(name + "\n")
        if masked:
            self._write_maps(image, name)

    def image_name(self, image: Image) -> str:
        """As its XML says."""
        return f"JPEGImages/{_file_name(image)}"

    def _write_maps(self, image: Image, name: str) -> None:
        values = list(range(1, len(image.regions) + 1))
        categories = np.array([0, *(region.category_id for region in image.regions)])
        objects = flatten(image, values, self.losses)
        # Beyond what a palette holds there are boxes only.
        too_many = (objects > _MAX) | (categories > _MAX)[objects]
        self.losses.add(
            "masks beyond 254 a frame or category 254", len(np.unique(objects[too_many]))
        )
        objects[too_many] = 0
        classes = categories[objects].astype(np.uint8)
        self.write_png(f"SegmentationObject/{name}.png", objects.astype(np.uint8), COLOURS)
        self.write_png(f"SegmentationClass/{name}.png", classes, COLOURS)


def _file_name(image: Image) -> str:
    return flat_name(image.path) + PurePosixPath(image.record.image).suffix


def _document(image: Image, *, masked: bool) -> str:
    height, width = image.record.size
    objects = "".join(_object(region.record) for region in image.regions)
    return (
        f"<annotation>\n<folder>JPEGImages</folder><filename>{xml_text(_file_name(image))}</filename>\n"
        f"<source><database>ape_stream</database><image>{xml_text(image.record.image)}</image>"
        f"</source>\n<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"<segmented>{int(masked and bool(image.regions))}</segmented>\n{objects}</annotation>\n"
    )


def _object(record: InstanceRecord) -> str:
    x1, y1, x2, y2 = record.box
    box = {"xmin": int(x1) + 1, "ymin": int(y1) + 1, "xmax": math.ceil(x2), "ymax": math.ceil(y2)}
    bounds = "".join(f"<{key}>{value}</{key}>" for key, value in box.items())
    values = {"score": record.score, "track_id": record.track_id}
    attributes = "".join(
        f"<attribute><name>{key}</name><value>{value}</value></attribute>"
        for key, value in values.items()
        if value is not None
    )
    inside = (
        f"<name>{xml_text(record.prompt)}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>0</difficult><bndbox>{bounds}</bndbox><attributes>{attributes}</attributes>"
    )
    return element("object", {}, inside)
