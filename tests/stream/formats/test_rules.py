"""What was written keeps the rules of formats whose own readers cannot be installed here."""

import base64
import csv
import io
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import PIL.Image
import pytest
from annotated import FLAT, OBJECTS, PROMPTS, SEEN, SHAPES, SIZE, VIDEOS, H, W, load
from pycocotools import mask as coco_mask

from ape_stream import masks
from ape_stream.types import Mask

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"  # pycocotools
)

TEXTS = [prompt.text for prompt in PROMPTS]
FOLDERS = ("clip-a/Prüfung-猫", "b")


@pytest.mark.parametrize("folder", FOLDERS)
def test_cvat_tracks_are_polygons_with_a_key_frame_each_and_an_end(written, folder):
    tree = ET.parse(written[0] / f"cvat/{folder}.xml")
    assert [label.findtext("name") for label in tree.iter("label")] == TEXTS
    tracks = list(tree.iter("track"))
    assert len({track.get("id") for track in tracks}) == len(tracks) == 6  # `two` is two
    assert [track.get("group_id") for track in tracks] == ["1", "2", "2", "3", "4", "5"]
    ring, two = tracks[0], tracks[1]
    assert [(s.get("frame"), s.get("outside")) for s in ring] == [
        ("0", "0"),
        ("1", "1"),
        ("3", "0"),
    ]
    assert [s.get("outside") for s in two] == ["0", "1", "0", "0"]
    assert {shape.get("keyframe") for track in tracks for shape in track} == {"1"}


def test_cvat_polygons_of_a_group_are_the_mask(written):
    tree = ET.parse(written[0] / "cvat/b.xml")
    for name in ("two", "pixel", "line", "full"):
        group = str(OBJECTS[name][1])
        rings = [
            [float(v) for point in track[-1].get("points").split(";") for v in point.split(",")]
            for track in tree.iter("track")
            if track.get("group_id") == group
        ]
        drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, H, W)))
        assert np.array_equal(drawn, SHAPES[name]), name


def test_cvat_images_hold_every_mask(written):
    tree = ET.parse(written[0] / "cvat-images/annotations.xml")
    images = list(tree.iter("image"))
    assert images[0].get("name") == "clip-a/Prüfung-猫/000000.jpg"
    for image, names in zip(images, SEEN * 2, strict=True):
        for shape, name in zip(image, names, strict=True):
            height, width = int(shape.get("height")), int(shape.get("width"))
            runs = np.array([int(run) for run in shape.get("rle").split(", ")])
            left, top = int(shape.get("left")), int(shape.get("top"))
            crop = masks.from_run_lengths(runs, (height, width))
            drawn = masks.paste(Mask(crop, left, top), SIZE)
            assert np.array_equal(drawn, SHAPES[name])
            assert shape.find("attribute[@name='track_id']").text == str(OBJECTS[name][1])


def test_labelme_draws_every_region_back(written):
    for k, names in enumerate(SEEN):
        document = load(written[0] / f"labelme/b/{k:06d}.json")
        assert document["imagePath"] == f"{k:06d}.jpg"
        by_track = {}
        for shape in document["shapes"]:
            canvas = by_track.setdefault(shape["group_id"], np.zeros(SIZE, np.uint8))
            points = np.array(shape["points"])
            if shape["shape_type"] == "polygon":
                cv2.fillPoly(canvas, [points], 1)
            else:
                crop = np.array(PIL.Image.open(io.BytesIO(base64.b64decode(shape["mask"]))))
                (x, y), (x2, y2) = points
                canvas[y : y2 + 1, x : x2 + 1] |= crop
        assert by_track.keys() == {OBJECTS[name][1] for name in names}
        for name in names:
            assert np.array_equal(by_track[OBJECTS[name][1]], SHAPES[name]), name


def test_panoptic_ids_are_those_of_the_png(flat):
    document = load(flat / "coco-panoptic/annotations/panoptic_default.json")
    assert [c["isthing"] for c in document["categories"]] == [1, 1, 1, 0]
    for entry, names in zip(document["annotations"], FLAT, strict=True):
        path = flat / "coco-panoptic/annotations/panoptic_default" / entry["file_name"]
        ids = np.array(PIL.Image.open(path)).astype(int) @ (1, 256, 65536)
        for segment, name in zip(entry["segments_info"], names, strict=True):
            assert np.array_equal(ids == segment["id"], SHAPES[name])
            assert segment["area"] == SHAPES[name].sum()
            x, y, w, h = segment["bbox"]
            assert (x, y, w, h) == cv2.boundingRect(SHAPES[name].astype(np.uint8))


def test_label_maps_keep_the_number_of_a_track(flat):
    numbers = {"ring": 1, "two": 2, "pixel": 3, "line": 4}
    for k, names in enumerate(FLAT):
        image = PIL.Image.open(flat / f"masks/b/{k:06d}.png")
        assert image.mode == "P"
        for name in names:
            assert np.array_equal(np.array(image) == numbers[name], SHAPES[name])
        assert image.getpalette()[3:6] == [128, 0, 0]


def test_voc_maps_are_objects_and_classes(flat):
    for k, names in enumerate(FLAT):
        objects = np.array(PIL.Image.open(flat / f"voc/SegmentationObject/b_{k:06d}.png"))
        classes = np.array(PIL.Image.open(flat / f"voc/SegmentationClass/b_{k:06d}.png"))
        for number, name in enumerate(names, start=1):
            assert np.array_equal(objects == number, SHAPES[name])
            assert (classes[SHAPES[name]] == OBJECTS[name][0] + 1).all()
    assert (flat / "voc/ImageSets/Main/val.txt").read_text().splitlines()[0] == "b_000000"


def test_label_studio_brushes_unpack_to_the_mask(written):
    tasks = load(written[0] / "labelstudio/tasks.json")
    for task, names in zip(tasks, SEEN * 2, strict=True):
        for result, name in zip(task["predictions"][0]["result"], names, strict=True):
            pixels = unpacked(bytes(result["value"]["rle"])).reshape(H, W, 4)
            assert np.array_equal(pixels[..., 3] > 0, SHAPES[name]), name
            assert result["value"]["brushlabels"] == [TEXTS[OBJECTS[name][0]]]


def unpacked(data):
    """Undo `@thi.ng/rle-pack`, bit by bit as its description says."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).tolist()
    at = 0

    def read(count):
        nonlocal at
        at += count
        return int("".join(map(str, bits[at - count : at])), 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < total:
        is_run, count = read(1), read(sizes[read(2)]) + 1
        assert is_run
        values += [read(word)] * count
    return np.array(values)


def test_label_studio_boxes_end_where_a_track_does(written):
    task = load(written[0] / "labelstudio/video_tasks.json")[1]
    tracks = {result["id"]: result["value"] for result in task["predictions"][0]["result"]}
    assert [(b["frame"], b["enabled"]) for b in tracks["t1-1"]["sequence"]] == [
        (1, False),
        (4, False),
    ]
    assert [b["enabled"] for b in tracks["t2-2"]["sequence"]] == [False, True, False]
    box = tracks["t3-3"]["sequence"][0]
    assert [box["x"] * W, box["width"] * W] == pytest.approx([300, 100])
    assert (tracks["t1-1"]["framesCount"], tracks["t1-1"]["duration"]) == (4, 0.16)


def test_datumaro_has_a_subset_a_video(written):
    heads = []
    for folder in ("clip-a_Prüfung-猫", "b"):
        document = load(written[0] / f"datumaro/annotations/{folder}.json")
        items = document.pop("items")
        heads.append(document)
        assert len(items) == len(SEEN)
        for item, names in zip(items, SEEN, strict=True):
            for annotation, name in zip(item["annotations"], names, strict=True):
                drawn = coco_mask.decode(annotation["rle"])
                assert np.array_equal(drawn, SHAPES[name])
                assert annotation["object_id"] == OBJECTS[name][1]
    assert heads[0] == heads[1], "its reader wants the same head in all subsets"


def test_csv_has_a_row_an_instance(written):
    text = (written[0] / "csv/instances.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    wanted = [(v.name, k, n) for v in VIDEOS for k, names in enumerate(SEEN) for n in names]
    for row, (video, k, name) in zip(rows, wanted, strict=True):
        assert (row["video"], int(row["frame"]), int(row["pts"])) == (video, k, k)
        assert row["prompt"] == TEXTS[OBJECTS[name][0]]
        mask = coco_mask.decode({"size": SIZE, "counts": row["rle"]})
        assert np.array_equal(mask, SHAPES[name])
        assert int(row["area"]) == mask.sum()


def test_what_a_format_cannot_hold_is_counted(written):
    _, writers = written
    losses = {
        name: {loss.what: loss.count for loss in writer.losses} for name, writer in writers.items()
    }
    assert losses["cvat"] == {"holes": 4}
    assert losses["coco"] == {"holes (in the file with polygons)": 4}
    assert losses["yolo"] == {"gaps between parts, joined by a line": 6, "track ids": 24}
    assert losses["mot"] == {"masks": 24}
    for name in ("coco-panoptic", "voc", "mots", "masks"):
        assert losses[name] == {"regions partly covered by others": 2}
    for name in ("ytvis", "cvat-images", "labelme", "labelstudio", "fiftyone", "datumaro", "csv"):
        assert losses[name] == {}, name
