"""What the tools' own readers find in our files is what was written.

Datumaro and FiftyOne cannot be installed next to our OpenCV; `test_rules.py` checks their formats.
"""

import contextlib
import io
import json

import cv2
import numpy as np
import pytest
import supervision as sv
from annotated import (
    FLAT,
    JOB,
    OBJECTS,
    PROMPTS,
    SEEN,
    SHAPES,
    VIDEOS,
    H,
    W,
    blank,
    disc,
    frames,
    load,
)
from labelformat.formats.yolov8 import YOLOv8InstanceSegmentationInput
from labelformat.formats.youtubevis import YouTubeVISInstanceSegmentationTrackInput
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from trackeval.datasets import MotChallenge2DBox, MOTSChallenge, YouTubeVIS

from ape_stream.formats.registry import open_writer

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"  # pycocotools
)

TEXTS = [prompt.text for prompt in PROMPTS]
ALL = [(video.name, k, name) for video in VIDEOS for k, names in enumerate(SEEN) for name in names]


def quiet(function, *arguments, **named):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments, **named)


@pytest.mark.parametrize(
    "path", ["coco/annotations/instances_default.json", "fiftyone/labels.json"]
)
def test_pycocotools_reads_every_mask_of_coco(written, path):
    coco = quiet(COCO, str(written[0] / path))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == TEXTS
    assert len(coco.imgs) == len(VIDEOS) * len(SEEN)
    assert len({image["file_name"] for image in coco.imgs.values()}) == len(coco.imgs)
    assert len(coco.anns) == len(ALL)
    for annotation, (_, k, name) in zip(coco.loadAnns(sorted(coco.anns)), ALL, strict=True):
        prompt, track_id, score = OBJECTS[name]
        assert np.array_equal(coco.annToMask(annotation), SHAPES[name])
        assert annotation["area"] == SHAPES[name].sum()
        assert (annotation["category_id"], annotation["score"]) == (prompt + 1, score)
        assert annotation["attributes"]["track_id"] == annotation["track_id"] == track_id
        assert coco.imgs[annotation["image_id"]]["frame_index"] == k


def test_pycocotools_reads_polygons_of_coco_to_the_pixel_except_holes(written):
    coco = quiet(COCO, str(written[0] / "coco/polygons/annotations/instances_default.json"))
    assert len(coco.anns) == len(ALL)
    for annotation, (_, _, name) in zip(coco.loadAnns(sorted(coco.anns)), ALL, strict=True):
        wanted = disc(20, 20, 12) if name == "ring" else SHAPES[name]
        assert np.array_equal(coco.annToMask(annotation), wanted)
        assert len(annotation["segmentation"]) == (2 if name == "two" else 1)


def test_supervision_reads_coco(written, tmp_path):
    data = sv.DetectionDataset.from_coco(
        str(tmp_path), str(written[0] / "coco/annotations/instances_default.json"), force_masks=True
    )
    assert data.classes == TEXTS
    image = next(path for path in data.annotations if path.endswith("/b/000000.jpg"))
    assert data.annotations[image].mask.sum(axis=(1, 2)).tolist() == [
        SHAPES[n].sum() for n in SEEN[0]
    ]


@pytest.mark.parametrize("split", ["train", "val"])
def test_supervision_reads_yolo_to_the_pixel(written, tmp_path, split):
    names = [f"b_{k:06d}" if split == "val" else f"clip-a_Prüfung-猫_{k:06d}" for k in range(4)]
    for name in names:
        blank(tmp_path / f"{name}.jpg")
    folder = written[0] / "yolo"
    data = sv.DetectionDataset.from_yolo(
        str(tmp_path), str(folder / f"labels/{split}"), str(folder / "data.yaml"), force_masks=True
    )
    assert data.classes == TEXTS
    for k, name in enumerate(names):
        found = data.annotations[str(tmp_path / f"{name}.jpg")]
        assert found.class_id.tolist() == [OBJECTS[n][0] for n in SEEN[k]]
        for mask, shape in zip(found.mask if len(found) else (), SEEN[k], strict=True):
            if shape == "two":  # a line of one pixel joins them
                assert (mask & SHAPES["two"]).sum() == SHAPES["two"].sum()
                assert 0 < (mask & ~SHAPES["two"]).sum() < 30
            else:
                assert np.array_equal(mask, SHAPES[shape]), shape


def test_supervision_reads_boxes_of_yolo(written, tmp_path):
    folder = written[0] / "yolo-detect"
    for k in range(4):
        blank(tmp_path / f"b_{k:06d}.jpg")
    data = sv.DetectionDataset.from_yolo(
        str(tmp_path), str(folder / "labels/val"), str(folder / "data.yaml")
    )
    boxes = data.annotations[str(tmp_path / "b_000003.jpg")].xyxy
    wanted = [cv2.boundingRect(SHAPES[name].astype(np.uint8)) for name in SEEN[3]]
    assert boxes == pytest.approx(
        np.array([(x, y, x + w, y + h) for x, y, w, h in wanted]), abs=1e-3
    )


def test_labelformat_reads_yolo(written):
    for split, prefix in (("train", "clip-a_Prüfung-猫"), ("val", "b")):
        for k in range(4):
            blank(written[0] / f"yolo/images/{split}/{prefix}_{k:06d}.jpg")
        read = YOLOv8InstanceSegmentationInput(written[0] / "yolo/data.yaml", split)
        assert [category.name for category in read.get_categories()] == TEXTS
        objects = {label.image.filename: len(label.objects) for label in read.get_labels()}
        assert [objects[f"{prefix}_{k:06d}.jpg"] for k in range(4)] == [
            len(names) for names in SEEN
        ]


def test_supervision_reads_voc(written, tmp_path):
    for k in range(4):
        blank(tmp_path / f"b_{k:06d}.jpg")
    data = sv.DetectionDataset.from_pascal_voc(str(tmp_path), str(written[0] / "voc/Annotations"))
    found = data.annotations[str(tmp_path / "b_000003.jpg")]
    assert [data.classes[k] for k in found.class_id] == [TEXTS[OBJECTS[n][0]] for n in SEEN[3]]
    # VOC's boxes are whole pixels from 1, both ends inside: supervision takes 1 from the first.
    wanted = [cv2.boundingRect(SHAPES[name].astype(np.uint8)) for name in SEEN[3]]
    assert found.xyxy.tolist() == [[x, y, x + w, y + h] for x, y, w, h in wanted]


def test_supervision_reads_polygons_of_labelme(tmp_path):
    with open_writer("labelme", tmp_path, JOB) as writer:
        writer.begin_video(VIDEOS[1])
        writer.frame(next(frames(VIDEOS[1], [("two", "full")])))
        writer.end_video()
    blank(tmp_path / "labelme/b/000000.jpg")
    data = sv.DetectionDataset.from_labelme(
        str(tmp_path / "labelme/b"), str(tmp_path / "labelme/b"), force_masks=True
    )
    (found,) = data.annotations.values()
    united = found.mask[found.class_id == data.classes.index(TEXTS[1])].any(0)
    assert np.array_equal(united, SHAPES["two"])


def test_trackeval_reads_mots(flat, tmp_path):
    data = evaluated(MOTSChallenge, flat / "mots", tmp_path)
    assert data["num_gt_dets"] == sum("two" in names for names in FLAT)
    assert data["num_gt_ids"] == 1
    for found, names in zip(data["gt_dets"], (*FLAT, ()), strict=True):
        wanted = [SHAPES["two"]] if "two" in names else []
        assert [coco_mask.decode(mask).astype(bool).tolist() for mask in found] == [
            mask.tolist() for mask in wanted
        ]


def test_trackeval_reads_mot(flat, tmp_path):
    data = evaluated(MotChallenge2DBox, flat / "mot", tmp_path, raw=True)
    wanted = [OBJECTS[name][1] for names in FLAT for name in names]
    assert np.concatenate(data["gt_ids"]).tolist() == wanted
    boxes = [cv2.boundingRect(SHAPES[n].astype(np.uint8)) for names in FLAT for n in names]
    assert np.concatenate(data["gt_dets"]).tolist() == [list(box) for box in boxes]


def evaluated(kind, folder, tmp_path, *, raw=False):
    """TrackEval's data of the video `b`, compared with itself."""
    trackers = tmp_path / "trackers/ours/data"
    trackers.mkdir(parents=True)
    (trackers / "b.txt").write_bytes((folder / "b/gt/gt.txt").read_bytes())
    data = quiet(
        kind,
        {
            "GT_FOLDER": str(folder),
            "TRACKERS_FOLDER": str(tmp_path / "trackers"),
            "SEQ_INFO": {"b": None},  # its length is read from seqinfo.ini
            "PRINT_CONFIG": False,
            "SKIP_SPLIT_FOL": True,
        },
    )
    if raw:
        return data._load_raw_file("ours", "b", is_gt=True)
    return data.get_preprocessed_seq_data(data.get_raw_seq_data("ours", "b"), "pedestrian")


def test_trackeval_reads_ytvis(flat, tmp_path):
    truth, results = tmp_path / "gt/youtube_vis_x", tmp_path / "trackers/youtube_vis_x/ours/data"
    truth.mkdir(parents=True)
    results.mkdir(parents=True)
    document = load(flat / "ytvis/annotations/instances.json")
    (truth / "gt.json").write_text(json.dumps(document))
    for track in document["annotations"]:  # of results it wants compressed ones
        track["segmentations"] = [
            mask and coco_mask.frPyObjects(mask, H, W) for mask in track["segmentations"]
        ]
        for mask in filter(None, track["segmentations"]):
            mask["counts"] = mask["counts"].decode()
    (results / "r.json").write_text(json.dumps(document["annotations"]))
    folders = {"GT_FOLDER": f"{tmp_path}/gt/", "TRACKERS_FOLDER": f"{tmp_path}/trackers/"}
    data = quiet(YouTubeVIS, {**folders, "SPLIT_TO_EVAL": "x", "PRINT_CONFIG": False})
    assert data.class_list == TEXTS
    assert data.seq_lengths == {1: len(FLAT)}
    raw = data.get_raw_seq_data("ours", "b")
    for text, names in (("ring", ["ring"]), ("苹果", ["pixel", "line"])):
        found = data.get_preprocessed_seq_data(raw, text)
        assert len(found["gt_track_ids"]) == len(found["dt_track_ids"]) == len(names)
        areas = [SHAPES[name].sum() for name in names]
        assert found["gt_track_areas"] == areas
        assert np.diag(found["similarity_scores"][0]).tolist() == [1.0] * len(names)


def test_labelformat_reads_ytvis(written):
    read = YouTubeVISInstanceSegmentationTrackInput(written[0] / "ytvis/annotations/instances.json")
    labels = {label.video.filename: label for label in read.get_labels()}
    assert [len(label.objects) for label in labels.values()] == [5, 5]
