"""Readers of the data sets as they are given out, in the folders of the official code.

dataset     what a reader returns
rows        rows of annotation files, read one at a time
unpickle    pickles that hold data and nothing else
coco        COCO's instances, LVIS, Objects365, ODinW, RoboFlow100, SegInW, RefCOCO
openimages  the CSV files of Open Images
labels      label images: BDD10K, Pascal VOC and Context, ADE20K-847
ade20k      ADE20K-150: semantic, panoptic, instances
panoptic    COCO's panoptic format, Cityscapes
d3          described object detection
phrases     Flickr30k Entities, GQA, PhraseCut
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ape_stream.evaluation.benchmarks.readers.ade20k import read_ade150
from ape_stream.evaluation.benchmarks.readers.coco import read_coco, read_lvis, read_refcoco
from ape_stream.evaluation.benchmarks.readers.d3 import read_d3
from ape_stream.evaluation.benchmarks.readers.labels import (
    read_ade847,
    read_context,
    read_labels,
    read_voc,
)
from ape_stream.evaluation.benchmarks.readers.openimages import read_openimages
from ape_stream.evaluation.benchmarks.readers.panoptic import read_cityscapes, read_panoptic
from ape_stream.evaluation.benchmarks.readers.phrases import (
    read_flickr30k,
    read_gqa,
    read_phrasecut,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ape_stream.evaluation.benchmarks.places import Places
    from ape_stream.evaluation.benchmarks.readers.dataset import Dataset

__all__ = ["READERS", "read"]

READERS: Final[dict[str, Callable[[Places], Dataset]]] = {
    "ade150": read_ade150,
    "ade847": read_ade847,
    "cityscapes": read_cityscapes,
    "coco": read_coco,
    "context": read_context,
    "d3": read_d3,
    "flickr30k": read_flickr30k,
    "gqa": read_gqa,
    "labels": read_labels,
    "lvis": read_lvis,
    "openimages": read_openimages,
    "panoptic": read_panoptic,
    "phrasecut": read_phrasecut,
    "refcoco": read_refcoco,
    "voc": read_voc,
}


def read(places: Places) -> Dataset:
    """Read a task: its images and classes now, the truth on request.

    Raises:
        UsageError: a file is not there; the message says where it can be downloaded.
        SourceError: a file cannot be read.
        PluginError: a library of the extra `eval` is not installed.
    """
    return READERS[places.task.reader](places)
