"""Miniatures of data sets with regions: COCO and its relatives, LVIS, Open Images, D3."""

from __future__ import annotations

import csv
import io
import json
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image

from ape_stream.evaluation.benchmarks.miniature.scenes import (
    HEIGHT,
    WIDTH,
    Scene,
    scenes,
    write_image,
)
from ape_stream.evaluation.benchmarks.registry import class_list
from ape_stream.files import written

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ape_stream.evaluation.benchmarks.miniature.scenes import Shape
    from ape_stream.evaluation.benchmarks.places import Places

__all__ = ["coco", "d3", "lvis", "openimages", "refcoco", "write_bytes", "write_json"]

_NAMES = ("cat", "dog", "bird", "traffic light", "cow")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file and the folders above it.

    Raises:
        SinkError: it cannot be written.
    """
    with written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file and the folders above it.

    Raises:
        SinkError: it cannot be written.
    """
    write_bytes(path, json.dumps(value).encode())


def _image(key: Any, name: str) -> dict[str, Any]:
    return {"id": key, "file_name": name, "height": HEIGHT, "width": WIDTH}


def _annotation(key: int, image: Any, category: int, shape: Shape) -> dict[str, Any]:
    x, y, w, h = shape.box
    return {
        "id": key, "image_id": image, "category_id": category, "bbox": [x, y, w, h],
        "area": w * h, "iscrowd": 0, "segmentation": [shape.polygon],
    }  # fmt: skip


def _table(
    drawn: Sequence[Scene], names: Sequence[str], ids: Sequence[int], first: int
) -> dict[str, Any]:
    images = [_image(first + k, name) for k, name in enumerate(names)]
    pairs = [(k, shape) for k, scene in enumerate(drawn) for shape in scene.shapes]
    annotations = [
        _annotation(first + n, first + k, ids[shape.kind], shape)
        for n, (k, shape) in enumerate(pairs)
    ]
    return {"images": images, "annotations": annotations}


def coco(places: Places, count: int) -> None:
    """COCO's instances; ids count from 0 in ODinW and RoboFlow100, as they do there."""
    task = places.task
    path, folder = (places.root / task.paths[what] for what in ("annotations", "images"))
    names = [f"{k:012d}.jpg" for k in range(1, count + 1)]
    first, labels, ids = 1, list(_NAMES), list(range(1, len(_NAMES) + 1))
    kinds = list(range(len(_NAMES) - 1))  # the last class is nowhere
    if task.classes is not None:  # Objects365
        labels = [name for _, name in class_list(task.classes)]
        ids = list(range(1, len(labels) + 1))
        names = [f"images/v1/patch0/{name}" for name in names]
    elif "160" in task.groups and "seginw" not in task.groups:
        first = 0
    if "rf100" in task.groups:  # the first category is the name of the whole
        labels, ids, kinds = ["objects", *labels], list(range(len(labels) + 1)), [1, 2, 3, 4]
    one = task.top_k == 1 or task.name.endswith("/Raccoon")
    drawn = scenes(task.name, count, kinds, most=1 if one else 4, empty=not one)
    table = _table(drawn, names, ids, first)
    table["categories"] = [{"id": k, "name": n} for k, n in zip(ids, labels, strict=True)]
    if task.name == "coco/val":
        table["annotations"].append(_crowd(table, drawn[0]))
    for name, scene in zip(names, drawn, strict=True):
        write_image(folder / name, scene.image)
    if task.classes is not None:
        _turn(folder / names[-1], table["images"][-1])
    write_json(path, table)


def _crowd(table: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """A region for many, as run lengths: the last columns of the first image."""
    free = np.zeros((HEIGHT, WIDTH), np.bool_)
    free[:, -4:] = True
    for shape in scene.shapes:
        free &= ~shape.mask
    flat = free.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    counts = [0, *runs] if flat[0] else runs
    return {
        "id": 10_000, "image_id": table["images"][0]["id"], "category_id": 1, "iscrowd": 1,
        "bbox": [WIDTH - 4, 0, 4, HEIGHT], "area": int(free.sum()),
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts},
    }  # fmt: skip


def _turn(path: Path, row: dict[str, Any]) -> None:
    """Store an image sideways with a note in its head, as some of Objects365 are."""
    with Image.open(path) as upright:
        stored = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn it by 90 degrees to the right
    with written(path):
        stored.save(path, exif=exif)
    row["height"], row["width"] = WIDTH, HEIGHT  # as the file has them: not turned


def lvis(places: Places, count: int) -> None:
    """LVIS: verified and not exhaustive classes, a class without a region, an image without one."""
    task = places.task
    folder = places.root / task.paths["images"]
    labels = ("aerosol_can", "alligator", "apple", "bagpipe", "cow", "zebra")
    drawn = scenes(task.name, count, (0, 1, 2, 3), empty=True)
    names = [f"val2017/{k:012d}.jpg" for k in range(1, count + 1)]
    table = _table(drawn, names, range(1, 7), 1)
    for row, scene in zip(table["images"], drawn, strict=True):
        row["coco_url"] = f"http://images.cocodataset.org/{row.pop('file_name')}"
        present = sorted({shape.kind + 1 for shape in scene.shapes})
        row["neg_category_ids"] = [5] if 5 not in present else []
        row["not_exhaustive_category_ids"] = present[:1]
    for row in table["annotations"]:
        del row["iscrowd"]
    table["categories"] = [
        {"id": k, "name": f"{name}_(thing)", "synonyms": [name, f"other {name}"]}
        | {"frequency": "rcf"[k % 3], "image_count": 1, "instance_count": 1}
        for k, name in enumerate(labels, start=1)
    ]
    for name, scene in zip(names, drawn, strict=True):
        write_image(folder / name, scene.image)
    write_json(places.root / task.paths["annotations"], table)


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if head:
        writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode()


def openimages(places: Places, count: int) -> None:
    """Open Images: CSV files, one group box, classes verified to be there or not."""
    task = places.task
    labels = [(f"/m/{k:02d}", name) for k, name in enumerate(_NAMES)]
    drawn = scenes(task.name, count, (0, 1, 2))
    keys = [f"{k:016x}" for k in range(count)]
    boxes, verified = [], []
    for k, (key, scene) in enumerate(zip(keys, drawn, strict=True)):
        present = {shape.kind for shape in scene.shapes}
        verified += [(key, "verification", labels[kind][0], 1) for kind in sorted(present)]
        verified += [
            (key, "verification", labels[kind][0], 0) for kind in range(4) if kind not in present
        ]
        for n, shape in enumerate(scene.shapes):
            x, y, w, h = shape.box
            corners = (x / WIDTH, (x + w) / WIDTH, y / HEIGHT, (y + h) / HEIGHT)
            group = int(not k and not n)
            boxes.append((key, "xclick", labels[shape.kind][0], 1, *corners, 0, 0, group, 0, 0))
        write_image(places.root / task.paths["images"] / f"{key}.jpg", scene.image)
    tables = {
        "names": _csv((), labels),
        "listing": _csv(
            ("ImageID", "Subset", "Rotation"), [(key, "validation", 0) for key in keys]
        ),
        "verified": _csv(("ImageID", "Source", "LabelName", "Confidence"), verified),
        "annotations": _csv(
            [
                "ImageID",
                "Source",
                "LabelName",
                "Confidence",
                "XMin",
                "XMax",
                "YMin",
                "YMax",
                "IsOccluded",
                "IsTruncated",
                "IsGroupOf",
                "IsDepiction",
                "IsInside",
            ],
            boxes,
        ),
    }
    for what, data in tables.items():
        write_bytes(places.root / task.paths[what], data)


def d3(places: Places, count: int) -> None:
    """D3: two groups of images with three sentences each, pickles and three files of truth."""
    texts = [
        "a red box", "a box without a lid", "two boxes",
        "a green box", "no box on the left", "a box under the lamp",
    ]  # fmt: skip
    base = places.root / "D3"
    # The first image has the id 0, as in D3.
    drawn = [scenes(f"d3 {k}", 1, range(3 * (k % 2), 3 * (k % 2) + 3))[0] for k in range(count)]
    names = [f"{k:06d}.jpg" for k in range(count)]
    table = _table(drawn, names, range(1, 7), 0)
    for name, scene in zip(names, drawn, strict=True):
        write_image(base / "d3_images" / name, scene.image)
    for kind, judged in {"full": range(1, 7), "pres": (1, 3, 4, 6), "abs": (2, 5)}.items():
        kept = [row for row in table["annotations"] if row["category_id"] in judged]
        categories = [{"id": k, "name": texts[k - 1]} for k in judged]
        whole = {"images": table["images"], "annotations": kept, "categories": categories}
        write_json(base / f"d3_json/d3_{kind}_annotations.json", whole)
    groups = {
        g: {"id": g, "inner_sent_id": [3 * g + 1, 3 * g + 2, 3 * g + 3], "scene": []}
        | {"img_id": [k for k in range(count) if k % 2 == g]}
        for g in range(2)
    }
    rows = {k: {**row, "group_id": k % 2, "anno_id": []} for k, row in enumerate(table["images"])}
    sentences = {
        k: {"id": k, "raw_sent": text, "anno_id": [], "group_id": [(k - 1) // 3]}
        for k, text in enumerate(texts, start=1)
    }
    pickles = {"sentences": sentences, "images": rows, "groups": groups, "annotations": {}}
    for name, value in pickles.items():
        write_bytes(base / f"d3_pkl/{name}.pkl", pickle.dumps(value))


def refcoco(places: Places, count: int) -> None:
    """RefCOCO: the same image once for each expression, each with a region of its own."""
    task = places.task
    drawn = scenes(task.name, count, range(4))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for k, scene in enumerate(drawn):
        name = f"COCO_train2014_{k:012d}.jpg"
        write_image(places.root / task.paths["images"] / name, scene.image)
        for shape in scene.shapes:
            key = len(images) + 1
            text = f"the {_NAMES[shape.kind]} at {shape.box[0]}"
            images.append({**_image(key, name), "expressions": [text]})
            annotations.append(_annotation(key, key, 1, shape))
    categories = [{"id": 1, "name": "object"}]
    table = {"images": images, "annotations": annotations, "categories": categories}
    write_json(places.root / task.paths["annotations"], table)
