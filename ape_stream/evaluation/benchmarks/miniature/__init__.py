"""Miniatures of the data sets: a few tiny images in the same files as the real ones.

scenes   what is drawn
regions  COCO and its relatives, LVIS, Open Images, D3, RefCOCO
maps     panoptic and label images
phrases  Flickr30k Entities, GQA, PhraseCut
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ape_stream.evaluation.benchmarks.miniature import maps, phrases, regions
from ape_stream.evaluation.benchmarks.places import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ape_stream.evaluation.benchmarks.task import Task

__all__ = ["write_miniatures"]

WRITERS: Final[dict[str, Callable[[Places, int], None]]] = {
    "ade150": maps.ade150,
    "ade847": maps.ade847,
    "cityscapes": maps.cityscapes,
    "coco": regions.coco,
    "context": maps.context,
    "d3": regions.d3,
    "flickr30k": phrases.flickr30k,
    "gqa": phrases.gqa,
    "labels": maps.labels,
    "lvis": regions.lvis,
    "openimages": regions.openimages,
    "panoptic": maps.panoptic,
    "phrasecut": phrases.phrasecut,
    "refcoco": regions.refcoco,
    "voc": maps.voc,
}
"""By the name of the reader."""


def write_miniatures(tasks: Iterable[Task], root: Path, images: int = 5) -> None:
    """Write the data sets of tasks, in both profiles; tasks that read the same files share them.

    Args:
        tasks: The tasks, without a profile.
        root: The folder of all data sets.
        images: How many of each.

    Raises:
        SinkError: a file cannot be written.
    """
    done = set()
    for task in tasks:
        for one in (task, task.with_profile("official")):
            key = tuple(sorted(one.paths.items()))
            if key not in done:
                WRITERS[one.reader](Places(root, one), images)
                done.add(key)
