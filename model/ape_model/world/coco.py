"""The drawn world as a COCO data set: images/, instances.json and captions.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from pycocotools import mask as rle

if TYPE_CHECKING:
    from pathlib import Path

    from ape_model.world.scene import Instance, Scene
    from ape_model.world.world import World

__all__ = ["export_coco", "write_image"]


def write_image(path: Path, scene: Scene) -> None:
    """Write a scene's image as a PNG file.

    Raises:
        OSError: the file cannot be written.
    """
    done, data = cv2.imencode(".png", scene.image)
    if not done:
        raise OSError(f"{path} could not be encoded")
    path.write_bytes(data.tobytes())


def _segmentation(scene: Scene, instance: Instance) -> dict[str, Any]:
    """COCO run-length encoding of an instance's visible pixels, compressed counts."""
    # pycocotools counts down columns, so it wants them contiguous.
    encoded = rle.encode(np.asfortranarray(scene.mask(instance).astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def _annotation(scene: Scene, instance: Instance, image_id: int, *, crowd: bool) -> dict[str, Any]:
    x1, y1, x2, y2 = instance.box
    return {
        "image_id": image_id,
        "category_id": instance.class_id + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": instance.area,
        "segmentation": _segmentation(scene, instance),
        "iscrowd": int(crowd),
    }


def _caption(world: World, scene: Scene) -> str:
    """The scene by main names, such as "a fox and a taxi on sky and grass"."""
    names = [world.names[i.class_id] for i in scene.instances if not i.stuff]
    ground = [world.names[i.class_id] for i in scene.instances if i.stuff]
    things = " and ".join(f"{'an' if n[0] in 'aeiou' else 'a'} {n}" for n in names) or "nothing"
    return f"{things} on {' and '.join(ground)}"


def _categories(world: World) -> list[dict[str, Any]]:
    return [
        {
            "id": k + 1,
            "name": name,
            "synonyms": list(world.words.synonyms[k]),
            "isthing": int(k < world.things),
        }
        for k, name in enumerate(world.names)
    ]


def export_coco(world: World, out: Path, seeds: range, size: tuple[int, int]) -> Path:
    """Draw one scene per seed and write them with their truth.

    Instances with too few visible pixels get iscrowd = 1: COCO evaluators ignore them.

    Args:
        world: Draws the scenes.
        out: Folder; made if it does not exist.
        seeds: One scene each; image ids are the seeds.
        size: Height and width in pixels.

    Returns:
        The path of instances.json; captions.json and images/ are in the same folder.

    Raises:
        OSError: a file cannot be written.
        ValueError: a seed or the size is out of range.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for seed in seeds:
        scene = world.scene(seed, size)
        name = f"{seed:08d}.png"
        write_image(out / "images" / name, scene)
        images.append({"id": seed, "file_name": name, "height": size[0], "width": size[1]})
        annotations += [_annotation(scene, i, seed, crowd=False) for i in scene.instances]
        annotations += [_annotation(scene, i, seed, crowd=True) for i in scene.ignored]
        captions.append({"id": seed, "image_id": seed, "caption": _caption(world, scene)})
    for k, annotation in enumerate(annotations):
        annotation["id"] = k + 1
    info = {"description": "drawn world of ape_model", "version": "1"}
    table = {"info": info, "images": images, "categories": _categories(world)}
    path = out / "instances.json"
    path.write_text(json.dumps(table | {"annotations": annotations}), encoding="utf-8")
    captioned = {"info": info, "images": images, "annotations": captions}
    (out / "captions.json").write_text(json.dumps(captioned), encoding="utf-8")
    return path
