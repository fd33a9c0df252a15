"""Results of a model that gives boxes without masks, on every way out of the pipeline."""

import json
from dataclasses import replace

import numpy as np
import pytest
from results import PROMPTS, made

from ape_stream.annotation.records import frame_values, instances_of
from ape_stream.errors import ConfigError, UsageError
from ape_stream.formats.records import JobRecord, VideoRecord, parse_record
from ape_stream.formats.registry import FORMATS, open_writer
from ape_stream.sinks.coco import CocoSink
from ape_stream.sinks.jsonl import JsonlSink
from ape_stream.sinks.labels import LabelsSink
from ape_stream.sinks.video import _redacted
from ape_stream.trackers.iou import IouTracker
from ape_stream.wire import Envelope, decode_result, encode_result

BOXES = np.array([[10, 20, 40.5, 60], [50, 30, 90, 70]], np.float32)
HOLD_MASKS_ONLY = {"coco-panoptic", "masks", "mots"}


def boxed(k=0):
    """The k-th result, with boxes in place of masks; both are tracked."""
    result = made(k)
    found = replace(result.instances, boxes=BOXES + k, masks=None, track_ids=np.array([1, 2]))
    return replace(result, instances=found)


def line_of(result):
    return parse_record(json.dumps(frame_values(result)), "a line")


def test_boxes_are_drawn_and_nothing_is_tinted():
    result = boxed()
    drawn = result.plot()
    assert (drawn != result.frame.image).any()
    inside = np.s_[45:55, 20:30]  # far from the line of the box and from its label
    np.testing.assert_array_equal(drawn[inside], result.frame.image[inside])


def test_a_selection_has_no_masks_either():
    found = boxed().instances
    assert len(found) == 2
    assert found.select(np.array([1])).masks is None


@pytest.mark.parametrize("overlap", ["box", "mask"])
def test_boxes_are_tracked(overlap):
    tracker = IouTracker(overlap=overlap)
    for k in range(3):
        found = replace(boxed(k).instances, track_ids=None)
        tracked = tracker.update(found, k / 25)
    assert tracked.track_ids.tolist() == [1, 2]


def test_a_file_of_lines_says_that_there_is_no_mask(tmp_path):
    with JsonlSink(str(tmp_path / "a.jsonl")) as sink:
        sink.write(boxed())
    line = json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8"))
    assert [item["mask"] for item in line["instances"]] == [None, None]
    assert instances_of(line).masks is None
    np.testing.assert_array_equal(instances_of(line).boxes, BOXES)


def test_coco_json_has_boxes_with_their_areas(tmp_path):
    with CocoSink(str(tmp_path / "a.json")) as sink:
        sink.write(boxed())
    first = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["annotations"][0]
    assert first["bbox"] == [10, 20, 30.5, 40]
    assert (first["area"], first["segmentation"]) == (1220, [])


def test_a_message_on_the_wire_has_no_masks():
    back = decode_result(encode_result(boxed(), Envelope("cam", "r", 1, 1)))
    assert back.instances.masks is None
    np.testing.assert_array_equal(back.instances.boxes, BOXES)


def test_a_whole_box_is_hidden():
    result = made()
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    result = replace(boxed(), frame=replace(result.frame, image=image))
    hidden = _redacted(result, (), [PROMPTS.texts[0]])
    changed = (hidden != image).any(axis=2)
    assert changed[20:60, 10:41].mean() > 0.99


def test_label_maps_are_refused_in_one_line(tmp_path):
    with pytest.raises(UsageError, match="a label image needs masks, and this model gives boxes"):
        boxed().label_image()
    with (
        pytest.raises(UsageError, match="needs masks"),
        LabelsSink(str(tmp_path / "labels")) as sink,
    ):
        sink.write(boxed())


def written(name, folder):
    job = JobRecord(prompts=tuple(PROMPTS))
    with open_writer(name, folder, job) as writer:
        writer.begin_video(VideoRecord("cam", 120, 90))
        for k in range(2):
            writer.frame(line_of(boxed(k)))
        writer.end_video()
    return "".join(
        path.read_text(encoding="utf-8") for path in sorted((folder / name).rglob("*.*"))
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("coco", '"bbox": [10.0, 20.0, 30.5, 40.0], "area": 1220.0, "segmentation": []'),
        ("cvat", 'xtl="10.0" ytl="20.0" xbr="40.5" ybr="60.0"'),
        ("cvat-images", 'xtl="10.0" ytl="20.0" xbr="40.5" ybr="60.0"'),
        ("csv", "10.0,20.0,40.5,60.0,1220.0,\n"),
        ("datumaro", '"bbox": [10.0, 20.0, 30.5, 40.0]'),
        ("fiftyone", '"segmentation": []'),
        ("labelme", '"points": [[10.0, 20.0], [40.5, 60.0]], "shape_type": "rectangle"'),
        ("labelstudio", '"rectanglelabels": ["red apple"]'),
        ("mot", "1,1,10.0,20.0,30.5,40.0,"),
        ("voc", "<xmin>11</xmin><ymin>21</ymin><xmax>41</xmax><ymax>60</ymax>"),
        ("yolo", "0 0.210417 0.444444 0.254167 0.444444\n"),
        ("yolo-detect", "0 0.210417 0.444444 0.254167 0.444444\n"),
        ("ytvis", '"bboxes": [[10.0, 20.0, 30.5, 40.0], '),
    ],
)
def test_a_format_that_holds_boxes_has_them(name, text, tmp_path):
    spaced = written(name, tmp_path)
    assert text in spaced or text.replace(": ", ":").replace(", ", ",") in spaced


@pytest.mark.parametrize("name", sorted(HOLD_MASKS_ONLY))
def test_a_format_of_masks_names_those_that_hold_boxes(name, tmp_path):
    with pytest.raises(ConfigError, match=r"boxes without masks.* choose one that holds boxes"):
        written(name, tmp_path)


def test_every_format_is_tried_here():
    tried = test_a_format_that_holds_boxes_has_them.pytestmark[0].args[1]
    assert {name for name, _ in tried} | HOLD_MASKS_ONLY == set(FORMATS)
