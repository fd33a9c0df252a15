"""Phrases with regions: Flickr30k Entities, GQA and PhraseCut, as they are given out.

A phrase is one class of one image: the same words in two captions are two of them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from ape_stream.errors import SourceError
from ape_stream.evaluation.benchmarks.readers.dataset import (
    Record,
    RegionData,
    classes_of,
    images_of,
    inside,
)
from ape_stream.evaluation.benchmarks.readers.rows import (
    RegionRows,
    mask_code,
    read_json,
    rows_of,
    strings,
    upright_size,
)
from ape_stream.evaluation.benchmarks.scoring.records import RegionTruth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from ape_stream.evaluation.benchmarks.places import Places

__all__ = ["read_flickr30k", "read_gqa", "read_phrasecut"]

_PHRASE = re.compile(r"\[/EN#(\d+)\S*\s+([^\]]+)\]")
"""A phrase in a caption of Flickr30k Entities: `[/EN#283585/people An older man]`."""
_ASKING = ("what", "who", "where")
"""Words of a question of GQA that stand for its answer."""


@dataclass(frozen=True, slots=True)
class _Phrase:
    """Words, and their regions in one image."""

    text: str
    boxes: list[Sequence[float]]
    """x, y, width, height."""
    polygons: list[Any] = field(default_factory=list)
    """Of each box, where the data set has masks."""


def _data(
    places: Places,
    images: Iterable[tuple[Path, str, list[_Phrase]]],
    *,
    masks: bool = False,
    size: Callable[[Record], tuple[int, int]] = lambda record: upright_size(record.path),
) -> RegionData:
    """The data of phrases, image by image: path, name and phrases."""
    records: list[Record] = []
    phrases: list[_Phrase] = []
    for number, (path, name, own) in enumerate(images, start=1):
        asked = tuple(range(len(phrases), len(phrases) + len(own)))
        phrases += own
        records.append(Record(number, path, name, asked))
    if not phrases:
        raise SourceError(f"{places.task.name} has no phrase with a region")
    classes = classes_of(enumerate(one.text for one in phrases))

    def truth() -> RegionTruth:
        rows = RegionRows(masks=masks)
        sizes = [size(record) for record in records]
        for record, extent in zip(records, sizes, strict=True):
            for position in record.asked or ():
                one = phrases[position]
                for k, box in enumerate(one.boxes):
                    code = mask_code(one.polygons[k], extent) if masks else None
                    rows.add(record.image_id, position, box, code=code)
        return RegionTruth(images_of(records, sizes), classes, rows.regions())

    return RegionData(
        task=places.task,
        classes=classes,
        prompts=classes.names,
        records=tuple(records),
        truth=cache(truth),
    )


def read_flickr30k(places: Places) -> RegionData:
    """Five captions an image; phrases without a box (scenes, things not shown) are left out."""
    sentences, boxes = places.path("sentences"), places.path("boxes")
    folder = places.path("images")

    def images() -> Iterable[tuple[Path, str, list[_Phrase]]]:
        for key in strings(places.path("listing")):
            known = _flickr_boxes(inside(boxes, f"{key}.xml"))
            found = [
                _Phrase(text, known[number])
                for line in strings(inside(sentences, f"{key}.txt"))
                for number, text in _PHRASE.findall(line)
                if number in known
            ]
            if found:
                yield inside(folder, f"{key}.jpg"), f"{key}.jpg", found

    return _data(places, images())


def _flickr_boxes(path: Path) -> dict[str, list[Sequence[float]]]:
    """The boxes of each entity; corners count from 1 in the file, and are kept as they are."""
    found: dict[str, list[Sequence[float]]] = defaultdict(list)
    try:
        # Without entities of its own: the parser of Python expands them without a limit.
        text = path.read_text(encoding="utf-8")
        if "<!ENTITY" in text:
            raise SourceError(f"{path} defines entities of XML")
        root = ET.fromstring(text)  # noqa: S314 (checked above)
    except (OSError, UnicodeDecodeError, ET.ParseError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    for item in root.iter("object"):
        corners = item.find("bndbox")
        if corners is not None:
            left, top, right, bottom = (
                float(corners.findtext(key, "0")) for key in ("xmin", "ymin", "xmax", "ymax")
            )
            for name in item.iter("name"):
                found[name.text or ""].append((left, top, right - left, bottom - top))
    return found


def read_gqa(places: Places) -> RegionData:
    """The words of each question that stand for an object of the scene, and its box.

    Where they are "what", "who" or "where", the short answer is asked for instead.
    """
    scenes = read_json(places.path("scenes"))
    folder = places.path("images")
    by_image: dict[str, dict[tuple[str, str], _Phrase]] = defaultdict(dict)
    for question in read_json(places.path("annotations")).values():
        image = question["imageId"]
        objects = scenes.get(image, {}).get("objects", {})
        words = question["question"].split()
        for span, key in question["annotations"]["question"].items():
            if key in objects:
                text = _words(words, span, question["answer"])
                one = objects[key]
                box = (one["x"], one["y"], one["w"], one["h"])
                by_image[image].setdefault((text, key), _Phrase(text, [box]))
    images = (
        (inside(folder, f"{image}.jpg"), f"{image}.jpg", list(phrases.values()))
        for image, phrases in sorted(by_image.items())
    )
    return _data(places, images)


def _words(words: Sequence[str], span: str, answer: str) -> str:
    """The words at "3" or "2:4" of a question, without its marks."""
    first, _, stop = span.partition(":")
    chosen = words[int(first) : int(stop) if stop else int(first) + 1]
    text = " ".join(chosen).strip("?.,! ")
    return answer if not text or text.lower().startswith(_ASKING) else text


def read_phrasecut(places: Places) -> RegionData:
    """A phrase names one region or several, each one polygon or several."""
    folder = places.path("images")
    by_image: dict[str, list[_Phrase]] = defaultdict(list)
    for row in rows_of(places.path("annotations"), ""):
        polygons = [
            [[value for point in polygon for value in point] for polygon in polygons]
            for polygons in row["Polygons"]
        ]
        phrase = _Phrase(row["phrase"], row["instance_boxes"], polygons)
        by_image[str(row["image_id"])].append(phrase)
    images = ((inside(folder, f"{key}.jpg"), f"{key}.jpg", own) for key, own in by_image.items())
    return _data(places, images, masks=True)
