"""CVAT's XML, https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/, version 1.1.

For video: `<video>.xml` with a polygon track for each object. CVAT tracks no masks, so a track is
the largest part's outline; further parts are tracks of their own in the same group, and holes are
lost. Every shape is a key frame, since CVAT would interpolate between those that are; a track that
is not seen in the next frame ends there with `outside`.

For images: `annotations.xml` with `<mask>` shapes, which hold everything.

A region without a mask is a `<box>` in both.
"""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from ape_stream import masks
from ape_stream.formats.shapes import edge_polygons
from ape_stream.formats.spool import GroupSpool
from ape_stream.formats.writer import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ape_stream.formats.records import InstanceRecord, JobRecord, VideoRecord
    from ape_stream.formats.writer import Image, Losses, Region
    from ape_stream.types import Mask

__all__ = ["CvatImages", "CvatVideo", "element", "xml_text"]

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(value: object) -> str:
    """A value as text of XML 1.0, which has no control characters."""
    return escape(_FORBIDDEN.sub("\ufffd", str(value)))


def element(name: str, attributes: Mapping[str, object], inside: str | None = None) -> str:
    """An element; `inside` is XML already."""
    pairs = (f" {key}={quoteattr(_FORBIDDEN.sub('�', str(v)))}" for key, v in attributes.items())
    start = f"<{name}{''.join(pairs)}"
    return f"{start}/>\n" if inside is None else f"{start}>{inside}</{name}>\n"


def _head(job: JobRecord, name: str, mode: str, extra: str = "") -> str:
    """Everything before the shapes; labels have attributes for what CVAT has no place for."""
    attributes = "".join(
        f"<attribute><name>{field}</name><mutable>True</mutable><input_type>text</input_type>"
        "<default_value></default_value><values></values></attribute>"
        for field in ("score", "track_id")
    )
    labels = "".join(
        f"<label><name>{xml_text(prompt.text)}</name><type>any</type>"
        f"<attributes>{attributes}</attributes></label>\n"
        for prompt in job.prompts
    )
    made = {"model": job.model, "threshold": job.threshold, "version": job.version}
    about = element("ape_stream", {k: v for k, v in made.items() if v is not None})
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta>\n'
        f"<task><name>{xml_text(name)}</name><mode>{mode}</mode>\n{extra}"
        f"<labels>\n{labels}</labels></task>\n{about}</meta>\n"
    )


def _attributes(record: InstanceRecord) -> str:
    values = {"score": record.score, "track_id": record.track_id}
    return "".join(
        f'<attribute name="{name}">{value}</attribute>'
        for name, value in values.items()
        if value is not None
    )


_Shape = tuple[str, dict[str, object]]
"""An element's name and where it lies."""


def _polygon(outline: NDArray[np.int32]) -> _Shape:
    return "polygon", {"points": ";".join(f"{x},{y}" for x, y in outline.tolist())}


def _box(record: InstanceRecord) -> _Shape:
    return "box", dict(zip(("xtl", "ytl", "xbr", "ybr"), record.box, strict=True))


def _mask(mask: Mask) -> _Shape:
    height, width = mask.bitmap.shape
    return "mask", {
        "rle": ", ".join(map(str, masks.run_lengths(mask.bitmap).tolist())),
        "left": mask.x,
        "top": mask.y,
        "width": width,
        "height": height,
    }


class CvatVideo(Layout):
    """The layout of CVAT for video."""

    def begin_video(self, video: VideoRecord, folder: str) -> None:
        """Start the video's tracks."""
        self._video, self._stem = video, folder
        # By (0, track, category, part), and (1, region, category, part) where there is no track.
        self._tracks = self.keep(GroupSpool(self.folder))
        self._open: dict[tuple[int, ...], _Shape] = {}  # last shape of those in the frame before
        self._frames = 0
        self._last = -1

    def frame(self, image: Image) -> None:
        """Spool the shapes of the frame, and the ends of tracks that are not in it."""
        before, self._open = self._open, {}
        self._last = image.record.frame
        self._frames += 1
        for region in image.regions:
            shapes = self._shapes(region)
            track_id = region.record.track_id
            owner = (1, region.id) if track_id is None else (0, track_id)
            attributes = _attributes(region.record)
            for number, shape in enumerate(shapes):
                key = (*owner, region.category_id, number)
                self._open[key] = shape
                self._add(key, shape, attributes)
        self._end(before.keys() - self._open.keys(), before)

    def _shapes(self, region: Region) -> list[_Shape]:
        if region.mask is None:
            return [_box(region.record)]
        parts = edge_polygons(region.mask)
        self.losses.add("holes", sum(len(part.holes) for part in parts))
        self.losses.add("empty masks", not parts)
        return [_polygon(part.outer) for part in parts]

    def _add(self, key: tuple[int, ...], shape: _Shape, inside: str, *, outside: int = 0) -> None:
        name, where = shape
        values = {"frame": self._last, "keyframe": 1, "outside": outside, "occluded": 0}
        self._tracks.add(key, self._last, element(name, {**values, **where, "z_order": 0}, inside))

    def _end(self, keys: set[tuple[int, ...]], before: Mapping[tuple[int, ...], _Shape]) -> None:
        for key in sorted(keys):
            self._add(key, before[key], "", outside=1)

    def end_video(self) -> None:
        """Write the video's file."""
        video = self._video
        # The video goes on where only a part of it was annotated.
        if video.frames is not None and self._last + 1 < video.frames:
            self._last += 1
            self._end(set(self._open), self._open)
        size = (
            f"<size>{video.frames or self._last + 1}</size><start_frame>0</start_frame>"
            f"<stop_frame>{(video.frames or self._last + 1) - 1}</stop_frame>\n<original_size>"
            f"<width>{video.width}</width><height>{video.height}</height></original_size>\n"
            f"<source>{xml_text(video.source or video.name)}</source>\n"
        )
        with self.open_text(f"{self._stem}.xml") as stream:
            stream.write(_head(self.job, video.name, "interpolation", size))
            self._write_tracks(stream)
            stream.write("</annotations>\n")
        self._tracks.close()

    def _write_tracks(self, stream: IO[str]) -> None:
        keys = list(self._tracks)
        used: set[int] = set()
        free = max((key[1] for key in keys if key[0] == 0), default=0)
        for key in keys:
            kind, owner, category, _ = key
            number = owner
            if kind or number in used:
                free += 1
                number = free
            used.add(number)
            label = self.job.prompts[category - 1].text
            # Groups of tracks are their ids; of the rest, ids that no track has.
            group = owner if kind == 0 else number
            values = {"id": number, "label": label, "source": "auto", "group_id": group}
            stream.write(element("track", values, "\n")[: -len("</track>\n")])
            stream.writelines(shape for _, shape in self._tracks.items(key))
            stream.write("</track>\n")


class CvatImages(Layout):
    """The layout of CVAT for images."""

    images_in = "images"

    def __init__(self, folder: Path, job: JobRecord, losses: Losses) -> None:
        super().__init__(folder, job, losses)
        self._stream = self.open_text("annotations.xml")
        self._stream.write(_head(job, "ape_stream", "annotation"))

    def frame(self, image: Image) -> None:
        """Write the image with its masks."""
        height, width = image.record.size
        values = {"id": image.id - 1, "name": image.record.image, "width": width, "height": height}
        shapes = []
        for region in image.regions:
            if region.mask is not None and not region.mask.bitmap.size:
                self.losses.add("empty masks")
                continue
            name, where = _box(region.record) if region.mask is None else _mask(region.mask)
            shape = {"label": region.record.prompt, "source": "auto", "occluded": 0, **where}
            shapes.append(element(name, {**shape, "z_order": 0}, _attributes(region.record)))
        self._stream.write(element("image", values, "\n" + "".join(shapes)))

    def finish(self) -> None:
        """End the file."""
        self._stream.write("</annotations>\n")
        self._stream.close()
