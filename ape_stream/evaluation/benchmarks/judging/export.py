"""Result files of other tools, from the predictions of a task."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ape_stream.errors import ConfigError
from ape_stream.evaluation.benchmarks.readers.dataset import RegionData
from ape_stream.evaluation.benchmarks.scoring.records import FoundRegions
from ape_stream.files import PartFile, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ape_stream.evaluation.benchmarks.judging.store import Stored

__all__ = ["export"]


def export(stored: Stored, path: Path, *, overwrite: bool = False) -> int:
    """Write the regions of a task as COCO, LVIS and D3 read them: a JSON list of detections.

    Ids are those of the data set's own files. Masks are run-length codes, where there are some.

    Returns:
        How many detections were written.

    Raises:
        ConfigError: the task has maps, which no such file can hold; or the file is there already.
        SinkError: it cannot be written.
    """
    if not isinstance(stored.data, RegionData):
        raise ConfigError(f"{stored.data.task.name} has maps: only regions can be exported")
    file = PartFile(path, overwrite=overwrite)
    file.open()
    count = 0
    with file.finishing(whole=True), written(file.part), file.stream("w") as stream:
        stream.write("[")
        for row in _rows(stored):
            stream.write(f"{',' if count else ''}\n{json.dumps(row)}")
            count += 1
        stream.write("\n]\n")
    return count


def _rows(stored: Stored) -> Iterator[dict[str, Any]]:
    for part in stored.parts():
        for record, found in part:
            if isinstance(found, FoundRegions):
                yield from _of_image(record.key, found)


def _of_image(key: int | str, found: FoundRegions) -> Iterator[dict[str, Any]]:
    columns = zip(found.class_ids.tolist(), found.xywh.tolist(), found.scores.tolist(), strict=True)
    for k, (class_id, box, score) in enumerate(columns):
        row = {"image_id": key, "category_id": class_id, "bbox": box, "score": score}
        if found.masks is not None:
            code = found.masks[k]
            row["segmentation"] = {**code, "counts": code["counts"].decode()}
        yield row
