"""Miniatures of data sets with phrases: Flickr30k Entities, GQA, PhraseCut."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from ape_stream.evaluation.benchmarks.miniature.regions import write_bytes, write_json
from ape_stream.evaluation.benchmarks.miniature.scenes import HEIGHT, WIDTH, scenes, write_image

if TYPE_CHECKING:
    from ape_stream.evaluation.benchmarks.places import Places

__all__ = ["flickr30k", "gqa", "phrasecut"]

_WORDS = ("man", "woman", "ball", "dog")


def flickr30k(places: Places, count: int) -> None:
    """A caption for each image, a phrase with boxes for each of its shapes, and one without."""
    task = places.task
    folders = {what: places.root / path for what, path in task.paths.items()}
    keys = [str(1_000_000 + k) for k in range(count)]
    for key, scene in zip(keys, scenes(task.name, count, range(4)), strict=True):
        objects, phrases = [], ["[/EN#999/scene The street]"]
        for n, shape in enumerate(scene.shapes):
            x, y, w, h = shape.box
            corners = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
            objects.append(f"<object><name>{n}</name><bndbox>{corners}</bndbox></object>")
            phrases.append(f"[/EN#{n}/people/other a {_WORDS[shape.kind]} at {x}]")
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        scene_object = "<object><name>999</name><scene>1</scene><nobndbox>1</nobndbox></object>"
        body = f"<filename>{key}.jpg</filename>{size}{scene_object}{''.join(objects)}"
        write_bytes(folders["boxes"] / f"{key}.xml", f"<annotation>{body}</annotation>".encode())
        caption = f"On {' and '.join(phrases)} .\n"
        write_bytes(folders["sentences"] / f"{key}.txt", caption.encode())
        write_image(folders["images"] / f"{key}.jpg", scene.image)
    write_bytes(folders["listing"], "\n".join(keys).encode())


def gqa(places: Places, count: int) -> None:
    """A question for each shape, and one that asks what is there."""
    task = places.task
    graphs, questions = {}, {}
    for k, scene in enumerate(scenes(task.name, count, range(4))):
        image = str(2_300_000 + k)
        objects = {}
        for n, shape in enumerate(scene.shapes):
            key, word = f"{k}{n:03d}", _WORDS[shape.kind]
            x, y, w, h = shape.box
            objects[key] = {"name": word, "x": x, "y": y, "w": w, "h": h}
            text = f"Is the small {word} number {n} there?" if n else "What is there?"
            questions[f"{k}{n:05d}"] = {
                "imageId": image,
                "question": text,
                "answer": "yes" if n else f"the {word}",
                "annotations": {"question": {"2:6" if n else "0": key}, "answer": {}},
            }
        graphs[image] = {"width": WIDTH, "height": HEIGHT, "objects": objects}
        write_image(places.root / task.paths["images"] / f"{image}.jpg", scene.image)
    write_json(places.root / task.paths["scenes"], graphs)
    write_json(places.root / task.paths["annotations"], questions)


def phrasecut(places: Places, count: int) -> None:
    """A phrase for all shapes of a class in an image."""
    task = places.task
    rows = []
    for k, scene in enumerate(scenes(task.name, count, range(3))):
        key = 5000 + k
        write_image(places.root / task.paths["images"] / f"{key}.jpg", scene.image)
        shapes = sorted(scene.shapes, key=lambda shape: shape.kind)
        for kind, group in groupby(shapes, key=lambda shape: shape.kind):
            own = list(group)
            points = [list(zip(s.polygon[::2], s.polygon[1::2], strict=True)) for s in own]
            rows.append(
                {
                    "task_id": f"{key}__{kind}",
                    "image_id": key,
                    "phrase": f"blue {_WORDS[kind]}",
                    "instance_boxes": [list(shape.box) for shape in own],
                    "Polygons": [[polygon] for polygon in points],
                }
            )
    write_json(places.root / task.paths["annotations"], rows)
