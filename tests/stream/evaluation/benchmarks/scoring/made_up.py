"""Random annotations and results as COCO's files have them, and the same as our records."""

from dataclasses import dataclass

import numpy as np

from ape_stream.evaluation.benchmarks.scoring.records import (
    Classes,
    Federation,
    FoundRegions,
    Images,
    MaskCodes,
    RegionTruth,
    TrueRegions,
)
from ape_stream.masks import crop, encode_rle

H, W = 60, 80
CLASSES = [3, 6, 9, 12]  # the last one has no region


def true_regions(rows, size=(H, W)):
    """Rows of image id, class id, box x y w h, whether it is a group; masks fill the boxes."""
    boxes = np.array([row[2] for row in rows], float).reshape(-1, 4)
    return TrueRegions(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int64),
        boxes,
        boxes[:, 2] * boxes[:, 3],
        np.array([row[3] if len(row) > 3 else False for row in rows], bool),
        MaskCodes.of([box_code(row[2], size) for row in rows]),
    )


def found_regions(rows, size=(H, W)):
    """Rows of image id, class id, box x y w h, score; masks fill the boxes."""
    return FoundRegions(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int32),
        np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[3] for row in rows], np.float32),
        MaskCodes.of([box_code(row[2], size) for row in rows]),
    )


def truth_of(regions, classes=CLASSES, images=None, federation=None, frequencies=None):
    ids = np.unique(regions.image_ids) if images is None else np.array(images, np.int64)
    sizes = np.tile(np.array([H, W], np.int32), (len(ids), 1))
    names = tuple(f"class {key}" for key in classes)
    known = Classes(np.array(classes, np.int64), names, frequencies)
    return RegionTruth(Images(ids, sizes), known, regions, federation)


def federation(negative=(), not_exhaustive=(), positive=()):
    """Pairs of image id and class id."""
    pairs = (negative, not_exhaustive, positive)
    return Federation(*(np.array(one, np.int64).reshape(-1, 2) for one in pairs))


def perfect(regions):
    """The truth as predictions."""
    return FoundRegions(
        regions.image_ids,
        regions.class_ids.astype(np.int32),
        regions.xywh.astype(np.float32),
        np.ones(len(regions), np.float32),
        regions.masks,
    )


def box_code(box, size=(H, W)):
    dense = np.zeros(size, bool)
    x, y, w, h = (int(side) for side in box)
    dense[y : y + h, x : x + w] = True
    return encode_rle(crop(dense), size)


@dataclass
class Case:
    file: dict
    """As an annotation file."""
    results: list
    """As a file of results, in random order."""
    truth: RegionTruth
    found: FoundRegions


def random_case(seed, *, federated=False, per_image=30):
    """Images with crowds or a federation, one without a region, and equal scores."""
    rng = np.random.default_rng(seed)
    images = [int(key) for key in rng.permutation(100)[:6]]
    annotations = []
    for image in images[1:]:
        for _ in range(rng.integers(0, 7)):
            box, crowd = random_box(rng), not federated and rng.random() < 0.2
            annotations.append(region(image, int(rng.choice(CLASSES[:-1])), box, rng))
            # Area decides on small, medium and large; it need not be that of the mask.
            annotations[-1] |= {"area": float(rng.uniform(0, 2) * box[2] * box[3])}
            annotations[-1] |= {"id": len(annotations), "iscrowd": int(crowd)}
    results = []
    for image in images:
        near = [one for one in annotations if one["image_id"] == image]
        results += [detection(image, near, rng) for _ in range(per_image)]
    results = [results[k] for k in rng.permutation(len(results))]
    shapes = [{"id": key, "height": H, "width": W} for key in images]
    known = federate(shapes, annotations, rng) if federated else None
    frequencies = tuple("rcf"[k % 3] for k in range(len(CLASSES)))
    categories = [
        {"id": key, "name": f"class {key}", "frequency": letter}
        for key, letter in zip(CLASSES, frequencies, strict=True)
    ]
    truth = truth_of(records(TrueRegions, annotations), CLASSES, images, known, frequencies)
    file = {"images": shapes, "annotations": annotations, "categories": categories}
    return Case(file, results, truth, records(FoundRegions, results))


def random_box(rng):
    x, y = rng.integers(0, 60), rng.integers(0, 45)
    w, h = rng.integers(2, 80 - x), rng.integers(2, 60 - y)
    return [float(x), float(y), float(w), float(h)]


def region(image, class_id, box, rng):
    """A box, and a mask that fills most of it."""
    dense = np.zeros((H, W), bool)
    x, y, w, h = (int(side) for side in box)
    dense[y : y + h, x : x + w] = True
    dense[y : y + rng.integers(0, h // 3 + 1), x : x + rng.integers(0, w)] = False
    code = encode_rle(crop(dense), (H, W))
    code["counts"] = code["counts"].decode()
    return {"image_id": image, "category_id": class_id, "bbox": box, "segmentation": code}


def detection(image, near, rng):
    box, class_id = random_box(rng), int(rng.choice(CLASSES))
    if near and rng.random() < 0.6:
        true = near[rng.integers(len(near))]
        x, y, w, h = (max(0.0, side + float(rng.integers(-3, 4))) for side in true["bbox"])
        box = [x, y, max(1.0, min(w, W - x)), max(1.0, min(h, H - y))]
        class_id = true["category_id"] if rng.random() < 0.8 else class_id
    score = float(np.float32(rng.integers(1, 60) / 64))
    return region(image, class_id, box, rng) | {"score": score}


def federate(images, annotations, rng):
    """Add the lists of LVIS to images."""
    negative, not_exhaustive = [], []
    for image in images:
        present = {a["category_id"] for a in annotations if a["image_id"] == image["id"]}
        absent = [key for key in CLASSES if key not in present and rng.random() < 0.4]
        partly = [key for key in present if rng.random() < 0.4]
        image |= {"neg_category_ids": absent, "not_exhaustive_category_ids": partly}
        negative += [(image["id"], key) for key in absent]
        not_exhaustive += [(image["id"], key) for key in partly]
    return federation(negative, not_exhaustive)


def records(kind, rows):
    image_ids = np.array([row["image_id"] for row in rows], np.int64)
    class_ids = np.array([row["category_id"] for row in rows], np.int64)
    boxes = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
    masks = MaskCodes.of([row["segmentation"] for row in rows])
    if kind is FoundRegions:
        scores = np.array([row["score"] for row in rows], np.float32)
        return kind(image_ids, class_ids.astype(np.int32), boxes.astype("f4"), scores, masks)
    areas = np.array([row["area"] for row in rows], float)
    crowds = np.array([row["iscrowd"] for row in rows], bool)
    return kind(image_ids, class_ids, boxes, areas, crowds, masks)
