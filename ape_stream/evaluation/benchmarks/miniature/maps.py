"""Miniatures of data sets with maps: panoptic and label images in each of their formats."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.io import savemat

from ape_stream.evaluation.benchmarks.miniature.regions import write_bytes, write_json
from ape_stream.evaluation.benchmarks.miniature.scenes import HEIGHT, WIDTH, scenes, write_image
from ape_stream.evaluation.benchmarks.registry import class_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ape_stream.evaluation.benchmarks.miniature.scenes import Scene
    from ape_stream.evaluation.benchmarks.places import Places

__all__ = ["ade150", "ade847", "cityscapes", "context", "labels", "panoptic", "voc"]

_COCO = (
    (1, "person", 1), (3, "car", 1), (17, "cat", 1),
    (92, "banner", 0), (93, "blanket", 0), (187, "sky-other-merged", 0),
)  # fmt: skip
_BDD = (7, 10, 30, 31, 35, 40)
"""Panoptic ids of BDD10K: some of stuff, and, from 31 on, of things."""


def _painted(scene: Scene, values: Sequence[int], ground: int) -> NDArray[np.int64]:
    """(HEIGHT, WIDTH): the value of each shape's class, and of the ground."""
    painted = np.full((HEIGHT, WIDTH), ground, np.int64)
    for shape in scene.shapes:
        painted[shape.mask] = values[shape.kind]
    return painted


def _colours(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(H, W, 3) ids as COCO colours them, blue-green-red."""
    parts = [ids // 65536 % 256, ids // 256 % 256, ids % 256]
    return np.stack(parts, axis=-1).astype(np.uint8)


def panoptic(places: Places, count: int) -> None:
    """COCO's format, with the classes of COCO or BDD10K; the first image has a void strip."""
    task = places.task
    rows = [*_COCO] if task.classes is None else [(k, "", k >= 31) for k in _BDD]
    numbers = [number for number, _, _ in rows]
    # Things and stuff in turn; one segment for all shapes of a stuff class.
    things = {number for number, _, thing in rows if thing}
    annotations = []
    folder, segments = (places.root / task.paths[what] for what in ("images", "segments"))
    for k, scene in enumerate(scenes("panoptic" + str(len(rows)), count, range(len(rows) - 1))):
        ids = np.full((HEIGHT, WIDTH), 1, np.int64)
        classes = {1: numbers[-1] if task.classes is None else numbers[0]}
        for n, shape in enumerate(scene.shapes):
            number = numbers[shape.kind]
            key = 300 + n if number in things else 1000 + number
            if number == classes[1]:
                key = 1
            ids[shape.mask] = key
            classes[key] = number
        if not k:
            ids[:, -3:] = 0
        present = [int(value) for value in np.unique(ids) if value]
        infos = [
            {"id": key, "category_id": classes[key], "iscrowd": 0}
            | {"area": int((ids == key).sum()), "bbox": [0, 0, 1, 1]}
            for key in present
        ]
        name = f"{k + 1:012d}"
        annotations.append({"image_id": k + 1, "file_name": f"{name}.png", "segments_info": infos})
        write_image(folder / f"{name}.jpg", scene.image)
        write_image(segments / f"{name}.png", _colours(ids))
    categories = [{"id": a, "name": b, "isthing": c} for a, b, c in rows]
    images = [{"id": row["image_id"], "file_name": row["file_name"]} for row in annotations]
    table: dict[str, Any] = {"images": images, "annotations": annotations}
    if task.classes is None:
        table["categories"] = categories
    write_json(places.root / task.paths["annotations"], table)


def labels(places: Places, count: int) -> None:
    """A folder of images and one of label images; the ground is not labelled."""
    task = places.task
    for k, scene in enumerate(scenes(task.name, count, range(5))):
        painted = _painted(scene, range(5), 255).astype(np.uint8)
        write_image(places.root / task.paths["images"] / f"{k:08x}.jpg", scene.image)
        write_image(places.root / task.paths["labels"] / f"{k:08x}.png", painted)


def voc(places: Places, count: int) -> None:
    """Pascal VOC: 0 is the background."""
    task = places.task
    names = [f"2007_{k:06d}" for k in range(count)]
    for name, scene in zip(names, scenes(task.name, count, range(5)), strict=True):
        painted = _painted(scene, range(1, 6), 0).astype(np.uint8)
        write_image(places.root / task.paths["images"] / f"{name}.jpg", scene.image)
        write_image(places.root / task.paths["labels"] / f"{name}.png", painted)
    write_bytes(places.root / task.paths["listing"], "\n".join(names).encode())


def context(places: Places, count: int) -> None:
    """Pascal Context: MATLAB files, and the lists of all labels and of the 59."""
    task = places.task
    names = [f"2008_{k:06d}" for k in range(count)]
    every = [name for _, name in class_list("pc459")]
    chosen = [name for _, name in class_list("pc59")]
    every += [name for name in chosen if name not in every]
    every = every[:459]
    values = [every.index(name) + 1 for name in chosen[:5]]
    for name, scene in zip(names, scenes("context", count, range(5)), strict=True):
        painted = _painted(scene, values, every.index("unknown") + 1).astype(np.uint16)
        file = io.BytesIO()
        savemat(file, {"LabelMap": painted}, do_compression=True)
        write_bytes(places.root / task.paths["labels"] / f"{name}.mat", file.getvalue())
        write_image(places.root / task.paths["images"] / f"{name}.jpg", scene.image)
    write_bytes(places.root / task.paths["listing"], "\n".join(names).encode())
    base = places.root / "VOCdevkit/VOC2010"
    for file_name, listed in {"labels.txt": every, "59_labels.txt": chosen}.items():
        lines = [f"{number}: {name}" for number, name in enumerate(listed, start=1)]
        write_bytes(base / file_name, "\n".join(lines).encode())


def ade847(places: Places, count: int) -> None:
    """ADE20K in full: an index with training images too, classes in red and green."""
    base = places.root / "ADE20K_2021_17_01"
    numbers = [number for number, _ in class_list("ade847")[:6]]
    folder = "ADE20K_2021_17_01/images/ADE/validation/a"
    names = [f"ADE_val_{k:08d}.jpg" for k in range(1, count + 1)]
    for name, scene in zip(names, scenes("ade847", count, range(5)), strict=True):
        painted = _painted(scene, numbers, numbers[5])
        # Blue is the instance: nothing that a class depends on.
        colours = np.stack([painted % 7, painted % 256, painted // 256 * 10], axis=-1)
        write_image(places.root / folder / name, scene.image)
        seg = name.replace(".jpg", "_seg.png")
        write_image(places.root / folder / seg, colours.astype(np.uint8))
    index = {
        "filename": [*names, "ADE_train_00000001.jpg"],
        "folder": [folder] * count + ["ADE20K_2021_17_01/images/ADE/training/a"],
        "objectPresence": np.zeros((3, count + 1)),
    }
    write_bytes(base / "index_ade20k.pkl", pickle.dumps(index))


def ade150(places: Places, count: int) -> None:
    """ADE20K-150: label images, and instances of things; the first image has a void strip."""
    base = places.root / "ADEChallengeData2016"
    listed = class_list("ade150")
    # Wall is the ground; then stuff and things in turn.
    kinds = [k for k, (number, _) in enumerate(listed) if not number][1:3]
    kinds += [k for k, (number, _) in enumerate(listed) if number][:3]
    for k, scene in enumerate(scenes("ade150", count, range(5))):
        painted = _painted(scene, [kind + 1 for kind in kinds], 1)
        if not k:
            painted[:, -3:] = 0
        instances = np.zeros((HEIGHT, WIDTH, 3), np.int64)
        for n, shape in enumerate(scene.shapes, start=1):
            number = listed[kinds[shape.kind]][0]
            if number:
                instances[shape.mask] = (0, n, number)  # blue, green, red
        name = f"ADE_val_{k + 1:08d}"
        write_image(base / f"images/validation/{name}.jpg", scene.image)
        write_image(base / f"annotations/validation/{name}.png", painted.astype(np.uint8))
        file = base / f"annotations_instance/validation/{name}.png"
        write_image(file, instances.astype(np.uint8))


def cityscapes(places: Places, count: int) -> None:
    """Cityscapes: classes and instances of two cities, with a group of cars and a strip of void."""
    labels, images = (places.root / places.task.paths[what] for what in ("labels", "images"))
    values = (7, 11, 24, 26, 23)
    for k, scene in enumerate(scenes("cityscapes", count, range(5))):
        classes = _painted(scene, values, 8)
        instances = classes.copy()
        for n, shape in enumerate(scene.shapes):
            if values[shape.kind] >= 24:
                instances[shape.mask] = values[shape.kind] * 1000 + n
        if not k:
            classes[:, -3:] = instances[:, -3:] = 3  # out of the region of interest
            classes[:, :2] = instances[:, :2] = 26  # a group of cars
        city = ("frankfurt", "lindau")[k % 2]
        name = f"{city}_{k:06d}_000019"
        write_image(images / city / f"{name}_leftImg8bit.png", scene.image)
        gt = labels / city
        write_image(gt / f"{name}_gtFine_labelIds.png", classes.astype(np.uint8))
        write_image(gt / f"{name}_gtFine_instanceIds.png", instances.astype(np.uint16))
