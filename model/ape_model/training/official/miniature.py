"""Tiny copies of the data sets of a recipe, in the same files as the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pycocotools import mask as rle

from ape_stream.evaluation.benchmarks.miniature.regions import write_json
from ape_stream.evaluation.benchmarks.miniature.scenes import HEIGHT, WIDTH, scenes, write_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ape_model.training.official.recipe import DataRow, OfficialRecipe
    from ape_stream.evaluation.benchmarks.miniature.scenes import Scene, Shape

__all__ = ["write_miniature_data"]

_STUFF: Final = 53
"""Stuff classes of COCO."""
_KINDS: Final = (0, 1, 2, 3)
"""Classes that occur."""
_COLOURS: Final = ("red", "green", "blue", "yellow")
_WITH_MASKS: Final = ("lvis", "refcoco", "phrasecut")
"""Sets with masks in their file, by the first letters; others have boxes, SA-1B its own files."""


def write_miniature_data(recipe: OfficialRecipe, root: Path, images: int = 4) -> None:
    """Write a tiny copy of every data set of a recipe.

    Args:
        recipe: Its rows.
        root: Folder of all data sets.
        images: Of each.

    Raises:
        SinkError: a file cannot be written.
    """
    for row in recipe.data:
        _write(row, root, images)


def _write(row: DataRow, root: Path, count: int) -> None:
    drawn = scenes(row.name, count, _KINDS)
    names = [_file_name(row, k) for k in range(count)]
    for name, scene in zip(names, drawn, strict=True):
        write_image(root / row.images / name, scene.image)
    table: dict[str, Any] = {
        "images": [_image(row, k, name) for k, name in enumerate(names, start=1)],
        "annotations": [],
        "categories": _categories(row),
    }
    for k, (name, scene) in enumerate(zip(names, drawn, strict=True), start=1):
        found = [_annotation(row, k, shape) for shape in scene.shapes]
        if row.keep_empty:  # SA-1B: a file of its own for each image
            own = {"image": {"image_id": k, "file_name": name}, "annotations": found}
            write_json((root / row.images / name).with_suffix(".json"), own)
        else:
            table["annotations"] += found
    for k, annotation in enumerate(table["annotations"], start=1):
        annotation["id"] = k
    write_json(root / row.annotations, table)
    if row.stuff:
        _write_stuff(row, root, names, drawn)


def _file_name(row: DataRow, number: int) -> str:
    folder = {"lvis": "train2017/", "obje": "images/v1/patch0/", "visu": "VG_100K/"}
    return f"{folder.get(row.name[:4], '')}{number + 1:012d}.jpg"


def _image(row: DataRow, key: int, name: str) -> dict[str, Any]:
    image = {"id": key, "height": HEIGHT, "width": WIDTH}
    if row.name.startswith("lvis"):
        return image | {"coco_url": f"http://images.cocodataset.org/{name}"}
    return image | {"file_name": name}


def _categories(row: DataRow) -> list[dict[str, Any]]:
    """As many as the real set has; phrases are all of one category."""
    if row.prompts == "phrase":
        return [{"id": 1, "name": "object"}]
    things = row.classes - (_STUFF if row.stuff else 0)
    return [
        {"id": k + 1, "name": f"thing_{k}", "synonyms": [f"thing {k} of {row.name}"]}
        for k in range(things)
    ]


def _annotation(row: DataRow, image: int, shape: Shape) -> dict[str, Any]:
    found: dict[str, Any] = {"image_id": image, "bbox": list(shape.box), "iscrowd": 0}
    if row.keep_empty:
        code = rle.encode(np.asfortranarray(shape.mask.view(np.uint8)))
        counts = code["counts"].decode() if isinstance(code["counts"], bytes) else code["counts"]
        return found | {"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}}
    if row.name.startswith(_WITH_MASKS):
        found["segmentation"] = [shape.polygon]
    if row.prompts == "phrase":
        side = "left" if shape.box[0] < WIDTH // 2 else "right"
        text = f"the {_COLOURS[shape.kind]} box on the {side}"
        return found | {"category_id": 1, "phrase": text}
    return found | {"category_id": min(shape.kind, row.classes - 1) + 1}


def _write_stuff(row: DataRow, root: Path, names: Sequence[str], drawn: Sequence[Scene]) -> None:
    """The panoptic file's classes, and maps: a stuff above, another one below, things between."""
    classes = [{"id": k, "name": f"thing {k}", "isthing": 1} for k in range(1, 91)]
    classes += [
        {"id": 91 + k, "name": f"stuff {k}-other-merged", "isthing": 0} for k in range(_STUFF)
    ]
    write_json(root / row.stuff, {"images": [], "annotations": [], "categories": classes})
    for name, scene in zip(names, drawn, strict=True):
        plane = np.full((HEIGHT, WIDTH), 1, np.uint8)
        plane[HEIGHT // 2 :] = 2
        for shape in scene.shapes:
            plane[shape.mask] = 0
        write_image(root / row.stuff_maps / f"{name.rpartition('/')[2][:-4]}.png", plane)
