"""A user's own pictures: COCO instances read with every fault named, and batches of them."""

from __future__ import annotations

import json
import random
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from pycocotools import mask as rle
from torch.utils.data import Dataset

from ape_model.training.batch import Batch, Example, collate
from ape_model.training.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ape_model.training.scenes import Stage

__all__ = ["CocoBatches", "CocoData", "Skips", "read_coco"]

LEAST_AREA = 16
"""A region that shows fewer pixels than this in a training picture is not asked for."""


@dataclass(slots=True)
class Skips:
    """How many annotations were left out, by cause."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, cause: str) -> None:
        """Count one."""
        self.counts[cause] = self.counts.get(cause, 0) + 1


@dataclass(frozen=True, slots=True, eq=False)
class CocoData:
    """A checked data set."""

    pictures: tuple[Path, ...]
    """Files, all there."""
    regions: tuple[tuple[tuple[int, dict[str, Any] | list[list[float]], tuple[int, int]], ...], ...]
    """Of each picture: class id, run-length code or polygons, (height, width)."""
    names: tuple[str, ...]
    """Main name of each class."""
    synonyms: tuple[tuple[str, ...], ...]
    """Further words of each class, from the (unofficial) field `synonyms` of a category."""
    skips: Skips
    """What was left out."""


def read_coco(path: Path, folder: Path | None = None) -> CocoData:
    """Read instances in COCO's format and check every line.

    Args:
        path: the JSON file.
        folder: where the pictures lie; None: beside the file.

    Raises:
        DataError: the file cannot be read, holds no usable region, misses a picture, or names a
            category twice; the message names the file and row.
    """
    table = _load(path)
    folder = path.parent if folder is None else folder
    rows = {c["id"]: k for k, c in enumerate(table["categories"])}
    names = [str(c["name"]).strip() for c in table["categories"]]
    for k, name in enumerate(names):
        if name.casefold() in (n.casefold() for n in names[:k]):
            raise DataError(f"{path}: category row {k} repeats the name {name!r}; rename or merge")
    sizes: dict[int, tuple[Path, int, int]] = {}
    for k, image in enumerate(table["images"]):
        file = folder / image["file_name"]
        if not file.is_file():
            raise DataError(f"{path}: image row {k}: {file} is missing")
        sizes[image["id"]] = (file, int(image["height"]), int(image["width"]))
    skips = Skips()
    found: dict[int, list[Any]] = {key: [] for key in sizes}
    for k, annotation in enumerate(table["annotations"]):
        if annotation.get("image_id") not in sizes or annotation.get("category_id") not in rows:
            raise DataError(f"{path}: annotation row {k} speaks of no known image or category")
        _, height, width = sizes[annotation["image_id"]]
        fault = _fault(annotation, height, width)
        if fault is not None:
            skips.add(fault)
            continue
        region = (
            rows[annotation["category_id"]],
            _shape(annotation, height, width),
            (height, width),
        )
        found[annotation["image_id"]].append(region)
    if not any(found.values()):
        raise DataError(f"{path} holds no usable region: {skips.counts or 'no annotations'}")
    used = [key for key, regions in found.items() if regions]
    return CocoData(
        pictures=tuple(sizes[key][0] for key in used),
        regions=tuple(tuple(found[key]) for key in used),
        names=tuple(names),
        synonyms=tuple(tuple(c.get("synonyms", ())) for c in table["categories"]),
        skips=skips,
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is no COCO file: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(table, dict) or not isinstance(table.get(key), list) or not table[key]:
            raise DataError(f"{path} has no {key}: it is no COCO file of instances, or empty")
    return table


def _fault(annotation: dict[str, Any], height: int, width: int) -> str | None:
    """Why an annotation cannot be used; None where it can."""
    x, y, w, h = annotation.get("bbox", (0, 0, width, height))
    shape = annotation.get("segmentation")
    if annotation.get("iscrowd"):
        return "crowd"
    if w <= 0 or h <= 0:
        return "box without area"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "outside the picture"
    if shape and isinstance(shape, list) and all(len(part) < 6 for part in shape):
        return "outline of fewer than three points"
    return None


def _shape(annotation: dict[str, Any], height: int, width: int) -> dict[str, Any] | list[Any]:
    """The outline of an annotation, its box where it has none."""
    x, y, w, h = annotation.get("bbox", (0, 0, width, height))
    box = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    shape: dict[str, Any] | list[Any] = annotation.get("segmentation") or box
    return shape


def _mask(shape: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W) uint8 0 or 1."""
    height, width = size
    if isinstance(shape, list):
        code = rle.merge(rle.frPyObjects(shape, height, width))
    elif isinstance(shape["counts"], list):
        code = rle.frPyObjects(shape, height, width)
    else:
        code = shape
    with warnings.catch_warnings():
        # pycocotools' array wrapper is older than NumPy 2 and says so at every call.
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(rle.decode(code), np.uint8)


class CocoBatches(Dataset["Batch"]):
    """A map-style data set of whole batches of a user's pictures.

    Each picture is resized at random (large-scale jitter), mirrored half of the time, and half of
    the time gets regions of another picture pasted on (copy-paste).

    Args:
        data: the pictures.
        stages: parts of the run.
        seed: of the run.
        unit: pixels that coordinate 1.0 stands for.
        steps: length of the run.
        rank: of this process among several.
    """

    def __init__(
        self,
        data: CocoData,
        stages: tuple[Stage, ...],
        *,
        seed: int,
        unit: int,
        steps: int,
        rank: int = 0,
    ) -> None:
        self.data, self.stages, self.seed = data, stages, seed
        self.unit, self.steps, self.rank = unit, steps, rank

    def __len__(self) -> int:
        """Steps of the run."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of one step."""
        rng = random.Random(f"{self.seed}/{step}")  # noqa: S311 - a seed, not a secret
        canvas = rng.choice([s for s in self.stages if s.first <= step][-1].canvases)
        rng = random.Random(f"{self.seed}/{step}/{self.rank}")  # noqa: S311
        size = (canvas.height, canvas.width)
        examples = [
            self.example(rng.randrange(len(self.data.pictures)), size, rng)
            for _ in range(canvas.batch)
        ]
        return collate(examples, self.unit)

    def example(self, index: int, size: tuple[int, int], rng: random.Random | None) -> Example:
        """One picture on a canvas of (height, width); None for `rng` only fits it in."""
        image, ids, classes = self._placed(index, size, rng)
        if rng is not None and rng.random() < 0.5:
            other = rng.randrange(len(self.data.pictures))
            pasted, other_ids, other_classes = self._placed(other, size, rng)
            over = other_ids > 0
            image[over] = pasted[over]
            ids[over] = other_ids[over] + len(classes)
            classes = classes + other_classes
        return _seen(image, ids, classes)

    def _placed(
        self, index: int, size: tuple[int, int], rng: random.Random | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], list[int]]:
        picture = cv2.imread(str(self.data.pictures[index]), cv2.IMREAD_COLOR)
        if picture is None:
            raise DataError(f"{self.data.pictures[index]} is no picture that can be read")
        regions = self.data.regions[index]
        ids = np.zeros(picture.shape[:2], np.int32)
        # Large regions first, so that what stands on them stays visible.
        masks = [_mask(shape, known) for _, shape, known in regions]
        for row in sorted(range(len(masks)), key=lambda k: -int(masks[k].sum())):
            if masks[row].shape != ids.shape:
                raise DataError(f"{self.data.pictures[index]} has another size than the data says")
            ids[masks[row] > 0] = row + 1
        matrix = _jitter(picture.shape[:2], size, rng)
        height, width = size
        # Grey is what the released models pad with once colours are normalised.
        moved = cv2.warpAffine(
            picture, matrix, (width, height), flags=cv2.INTER_AREA, borderValue=(104, 116, 124)
        )
        moved_ids = cv2.warpAffine(
            ids.astype(np.float32), matrix, (width, height), flags=cv2.INTER_NEAREST
        )
        return np.asarray(moved, np.uint8), moved_ids.astype(np.int32), [c for c, *_ in regions]


def _jitter(
    given: tuple[int, int], size: tuple[int, int], rng: random.Random | None
) -> NDArray[np.float64]:
    """Affine map (2, 3) from a picture to a canvas, both (height, width)."""
    fit = min(size[0] / given[0], size[1] / given[1])
    if rng is None:
        return np.array([[fit, 0, 0], [0, fit, 0]])
    scale = fit * rng.uniform(0.5, 1.4)
    left = rng.uniform(min(0, size[1] - scale * given[1]), max(0, size[1] - scale * given[1]))
    top = rng.uniform(min(0, size[0] - scale * given[0]), max(0, size[0] - scale * given[0]))
    if rng.random() < 0.5:
        return np.array([[-scale, 0, left + scale * given[1]], [0, scale, top]])
    return np.array([[scale, 0, left], [0, scale, top]])


def _seen(image: NDArray[np.uint8], ids: NDArray[np.int32], classes: list[int]) -> Example:
    """Keep the regions that show, and number them afresh."""
    boxes, kept, lookup = [], [], np.zeros(len(classes) + 1, np.int32)
    for row, name in enumerate(classes, start=1):
        mask = (ids == row).view(np.uint8)
        if int(mask.sum()) < LEAST_AREA:
            continue
        x, y, w, h = cv2.boundingRect(mask)
        boxes.append((x, y, x + w, y + h))
        kept.append(name)
        lookup[row] = len(kept)
    return Example(
        image=image,
        ids=lookup[ids],
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.array(kept, np.int64),
    )
