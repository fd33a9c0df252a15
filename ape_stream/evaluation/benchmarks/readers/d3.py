"""D3, described object detection: sentences, groups of images, and three files of truth."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from ape_stream.errors import SourceError
from ape_stream.evaluation.benchmarks.readers.coco import truth_of
from ape_stream.evaluation.benchmarks.readers.dataset import (
    Record,
    RegionData,
    classes_of,
    images_of,
    inside,
)
from ape_stream.evaluation.benchmarks.readers.rows import rows_of
from ape_stream.evaluation.benchmarks.readers.unpickle import read_pickle
from ape_stream.evaluation.benchmarks.scoring.records import RegionTruth

if TYPE_CHECKING:
    from ape_stream.evaluation.benchmarks.places import Places

__all__ = ["read_d3"]


def read_d3(places: Places) -> RegionData:
    """Option `own_group`: each image is asked for the sentences of its own group alone."""
    sentences = read_pickle(places.path("sentences"))
    rows = sorted(read_pickle(places.path("image_list")).values(), key=lambda row: row["id"])
    groups = read_pickle(places.path("groups"))
    folder, path = places.path("images"), places.path("annotations")
    keys = sorted(sentences)
    positions = {key: k for k, key in enumerate(keys)}
    own = places.task.options.get("own_group", False)
    records = tuple(
        Record(
            # An image may have the id 0.
            row["id"] + 1,
            inside(folder, row["file_name"]),
            row["id"],
            _asked(groups[row["group_id"]]["inner_sent_id"], positions) if own else None,
        )
        for row in rows
    )
    texts = [sentences[key]["raw_sent"] for key in keys]
    images = images_of(records, [(row["height"], row["width"]) for row in rows])

    def truth() -> RegionTruth:
        judged = sorted(row["id"] for row in rows_of(path, "categories"))
        if not judged or not positions.keys() >= set(judged):
            raise SourceError(f"{path}: its categories are not sentences of sentences.pkl")
        ids = {row["id"]: row["id"] + 1 for row in rows}
        regions = truth_of(path, images, ids, masks=False)
        classes = classes_of([(key, texts[positions[key]]) for key in judged])
        return RegionTruth(images, classes, regions)

    return RegionData(
        task=places.task,
        classes=classes_of(zip(keys, texts, strict=True)),
        prompts=tuple(texts),
        records=records,
        truth=cache(truth),
    )


def _asked(sentence_ids: list[int], positions: dict[int, int]) -> tuple[int, ...]:
    return tuple(sorted(positions[key] for key in sentence_ids))
