"""Every format by its name; a writer's module is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from ape_stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ape_stream.formats.records import JobRecord
    from ape_stream.formats.writer import FormatWriter

__all__ = ["FORMATS", "Format", "check_formats", "open_writer"]


class Format(NamedTuple):
    """One row of the table of formats."""

    description: str
    """One line for help texts."""
    layout: str
    """`module:class` below `ape_stream.formats.layouts`."""


FORMATS: Mapping[str, Format] = {
    "coco": Format("COCO instances: run lengths, and polygons in a file of its own", "coco:Coco"),
    "coco-panoptic": Format("COCO panoptic: a PNG a frame and one json", "panoptic:Panoptic"),
    "ytvis": Format("YouTube-VIS: one json with a list of masks for each track", "ytvis:Ytvis"),
    "cvat": Format("CVAT for video: an XML a video with polygon tracks", "cvat:CvatVideo"),
    "cvat-images": Format("CVAT for images: one XML with masks", "cvat:CvatImages"),
    "labelme": Format("LabelMe: a json a frame, polygons and masks", "labelme:Labelme"),
    "yolo": Format("YOLO segmentation: polygons in a text file a frame", "yolo:YoloSegment"),
    "yolo-detect": Format("YOLO detection: boxes in a text file a frame", "yolo:YoloDetect"),
    "voc": Format("Pascal VOC: an XML a frame, and PNG masks", "voc:Voc"),
    "mot": Format("MOT Challenge: boxes of tracks in text", "mot:Mot"),
    "mots": Format("MOTS: masks of tracks in text", "mot:Mots"),
    "masks": Format("indexed PNG: a label map a frame, and a legend", "label_maps:LabelMaps"),
    "labelstudio": Format(
        "Label Studio: tasks with brush masks, and with video boxes", "labelstudio:LabelStudio"
    ),
    "fiftyone": Format("FiftyOne: a data set folder for its COCO importer", "coco:FiftyOne"),
    "datumaro": Format("Datumaro: a json a video with masks", "datumaro:Datumaro"),
    "csv": Format("a table: one row an instance", "table:Csv"),
}
"""Names as `--format` takes them."""


def check_formats(names: Iterable[str]) -> None:
    """Refuse what is no format, before anything is written.

    Raises:
        ConfigError: there is no such format.
    """
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"there is no format {name!r}; there are: {', '.join(FORMATS)}")


def open_writer(
    format: str,  # noqa: A002 (the word of the command line)
    out_dir: str | Path,
    job: JobRecord,
    *,
    images: Path | None = None,
    overwrite: bool = False,
) -> FormatWriter:
    """A writer of one format; use it in a `with` statement.

        with open_writer("coco", "out", job) as writer:
            writer.begin_video(video)
            for frame in frames:
                writer.frame(frame)
            writer.end_video()

    All is written into the folder `<out_dir>/<format>.part`, which becomes `<out_dir>/<format>`
    when the statement ends without an error.

    Args:
        format: A name in `FORMATS`.
        out_dir: The folder above.
        job: What made the results; its prompts are the categories, from 1.
        images: Where the images lie under the names that records have, if they do; each is linked
            to where readers of the format look for it.
        overwrite: Replace what an earlier writer made; nothing else is ever replaced.

    Raises:
        ConfigError: there is no such format. On entering: there is such a folder already.
        SinkError: on entering, the folder cannot be made.
    """
    from ape_stream.formats.writer import FormatWriter  # noqa: PLC0415 (help needs names only)

    check_formats([format])
    module, _, name = FORMATS[format].layout.partition(":")
    layout = getattr(import_module(f"ape_stream.formats.layouts.{module}"), name)
    return FormatWriter(format, layout, out_dir, job, images=images, overwrite=overwrite)
