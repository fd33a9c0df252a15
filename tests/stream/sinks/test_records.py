"""JSON Lines, COCO json and label maps: what is written reads back, also after a failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from results import PROMPTS, made

from ape_stream import masks
from ape_stream.depth import Camera, Depth
from ape_stream.errors import SinkError, TruncatedError
from ape_stream.protocols import Sink
from ape_stream.sinks.coco import CocoSink
from ape_stream.sinks.jsonl import JsonlSink
from ape_stream.sinks.labels import LabelsSink

KINDS = [(JsonlSink, "o.jsonl"), (CocoSink, "o.json"), (LabelsSink, "labels")]


def write(sink, results):
    with sink:
        for result in results:
            sink.write(result)


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_each_is_a_sink_and_makes_its_folders(tmp_path, kind, name):
    sink = kind(str(tmp_path / "new" / name))
    assert isinstance(sink, Sink)
    write(sink, [made()])
    assert (tmp_path / "new" / name).exists()


# --------------------------------------------------------------------------------------- JSON Lines


def test_jsonl_has_a_line_per_frame_empty_ones_too(tmp_path):
    results = [made(0), made(1, found=0), made(2, found=3, origin="shots/2.png")]
    write(JsonlSink(str(tmp_path / "o.jsonl")), results)
    first, empty, last = lines(tmp_path / "o.jsonl")
    assert (first["stream"], first["frame"], first["time_s"]) == ("cam", 0, 0.0)
    assert first["size"] == [90, 120]
    assert (empty["frame"], empty["instances"]) == (1, [])
    assert last["file"] == "shots/2.png"
    assert [one["prompt"] for one in last["instances"]] == list(PROMPTS.texts)
    assert [one["track_id"] for one in last["instances"]] == [None, 1, 2]
    assert [one["score"] for one in last["instances"]] == [0.9, 0.7, 0.5]
    for one, mask in zip(last["instances"], results[2].instances.masks, strict=True):
        assert one["box"] == list(masks.box(mask))
        dense = masks.paste(masks.decode_rle(one["mask"]), (90, 120))
        np.testing.assert_array_equal(dense, masks.paste(mask, (90, 120)))


def test_jsonl_lines_are_on_disk_as_soon_as_written(tmp_path):
    with JsonlSink(str(tmp_path / "o.jsonl")) as sink:
        for k in range(3):
            sink.write(made(k))
            assert len(lines(tmp_path / "o.jsonl.part")) == k + 1
    assert len(lines(tmp_path / "o.jsonl")) == 3


# -------------------------------------------------------------------------------------------- COCO


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its decoder's
def test_coco_json_is_read_by_pycocotools(tmp_path):
    results = [made(0), made(1, found=0), made(2, found=3, stream="b", origin="shots/2.png")]
    write(CocoSink(str(tmp_path / "o.json")), results)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.json"]
    coco = COCO(str(tmp_path / "o.json"))
    images = coco.loadImgs(coco.getImgIds())
    assert [(i["stream"], i["frame_index"], i["time_s"]) for i in images] == [
        ("cam", 0, 0.0),
        ("cam", 1, 0.04),
        ("b", 2, 0.08),
    ]
    assert [image["file_name"] for image in images] == ["cam/000000", "cam/000001", "shots/2.png"]
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(PROMPTS.texts)
    assert coco.getAnnIds(imgIds=images[1]["id"]) == []
    found = coco.loadAnns(coco.getAnnIds(imgIds=images[2]["id"]))
    assert [one["track_id"] for one in found] == [None, 1, 2]
    for one, mask in zip(found, results[2].instances.masks, strict=True):
        np.testing.assert_array_equal(coco.annToMask(one), masks.paste(mask, (90, 120)))
        x1, y1, x2, y2 = masks.box(mask)
        assert one["bbox"] == [x1, y1, x2 - x1, y2 - y1]
        assert one["area"] == masks.area(mask)


def test_coco_json_of_no_frame_is_a_document(tmp_path):
    write(CocoSink(str(tmp_path / "o.json")), [])
    document = json.loads((tmp_path / "o.json").read_text())
    assert list(document) == ["info", "categories", "images", "annotations"]
    assert document["info"]["partial"] is False
    assert document["categories"] == document["images"] == document["annotations"] == []


def test_coco_replaces_an_older_document_only_when_done(tmp_path):
    path = tmp_path / "o.json"
    path.write_text("the older one")
    with CocoSink(str(path), overwrite=True) as sink:
        sink.write(made())
        assert path.read_text() == "the older one"
    assert len(json.loads(path.read_text())["images"]) == 1


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_a_run_that_fails_leaves_a_part(tmp_path, kind, name):
    def broken_off():
        yield made()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(kind(str(tmp_path / name)), broken_off())
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.part"]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_a_run_that_fails_before_its_first_frame_leaves_nothing(tmp_path, kind, name):
    with pytest.raises(KeyboardInterrupt), kind(str(tmp_path / name)):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_coco_says_that_a_source_broke_off(tmp_path):
    def broken_off():
        yield made()
        raise TruncatedError("a.mp4 ends early: 1 of 9 frames")

    with pytest.raises(TruncatedError):
        write(CocoSink(str(tmp_path / "o.json")), broken_off())
    about = json.loads((tmp_path / "o.json").read_text())["info"]
    assert (about["partial"], about["reason"]) == (True, "a.mp4 ends early: 1 of 9 frames")


def test_a_killed_run_leaves_every_frame_that_was_written(tmp_path):
    code = (
        f"import sys, time; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from results import made\n"
        "from ape_stream.sinks.coco import CocoSink\n"
        "from ape_stream.sinks.jsonl import JsonlSink\n"
        "with CocoSink('o.json') as a, JsonlSink('o.jsonl') as b:\n"
        "    for k in range(20): a.write(made(k)); b.write(made(k))\n"
        "    print('written', flush=True); time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, stdout=subprocess.PIPE
    ) as writer:
        writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
    assert [line["frame"] for line in lines(tmp_path / "o.jsonl.part")] == list(range(20))
    parts = lines(tmp_path / "o.json.part")
    assert [part["image"]["frame_index"] for part in parts] == list(range(20))
    assert all(len(part["annotations"]) == 2 for part in parts)


# -------------------------------------------------------------------------------------- label maps


def test_label_maps_show_small_regions_over_large_ones(tmp_path):
    results = [made(7, found=3, stream="../../cam"), made(8, found=0)]
    write(LabelsSink(str(tmp_path / "labels")), results)
    legend = lines(tmp_path / "labels" / "legend.jsonl")
    assert [line["file"] for line in legend] == ["cam/000007.png", "cam/000008.png"]
    read = cv2.imread(str(tmp_path / "labels" / legend[0]["file"]), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, masks.label_map(results[0].instances.masks, (90, 120)))
    assert [one["value"] for one in legend[0]["regions"]] == [1, 2, 3]
    assert [one["prompt"] for one in legend[0]["regions"]] == list(PROMPTS.texts)
    assert not cv2.imread(str(tmp_path / "labels/cam/000008.png"), cv2.IMREAD_UNCHANGED).any()


# --------------------------------------------------------------------------------------- bad places


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_a_path_below_a_file_is_refused_on_entering(tmp_path, kind, name):
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot write") as error, kind(f"{tmp_path}/file/{name}"):
        pass
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [JsonlSink, CocoSink])
def test_a_folder_in_the_way_is_refused(tmp_path, kind):
    (tmp_path / "o").mkdir()
    with pytest.raises(SinkError, match="cannot write"):
        write(kind(str(tmp_path / "o")), [made()])
    assert (tmp_path / "o").is_dir()


def test_a_full_disk_is_reported_in_one_line():
    with pytest.raises(SinkError, match="cannot write /dev/full: No space left") as error:
        write(JsonlSink("/dev/full"), [made()])
    assert "\n" not in str(error.value)


FULL = """
import resource, sys
sys.path.insert(0, {here!r})
from results import made
from ape_stream.errors import SinkError
from ape_stream.sinks.{module} import {kind}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
count = 0
try:
    with {kind}({path!r}) as sink:
        for count in range(10_000):
            sink.write(made(count % 60))
except SinkError as error:
    print(count, error)
"""


@pytest.mark.parametrize(
    ("module", "kind", "name"),
    [
        ("jsonl", "JsonlSink", "o.jsonl"),
        ("coco", "CocoSink", "o.json"),
    ],
)
def test_nothing_written_is_lost_when_the_disk_fills_up(tmp_path, module, kind, name):
    code = FULL.format(
        here=str(Path(__file__).parents[1]), module=module, kind=kind, path=str(tmp_path / name)
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    count, _, message = done.stdout.strip().partition(" ")
    assert message.startswith("cannot write")
    assert "\n" not in message
    whole = (tmp_path / f"{name}.part").read_bytes().split(b"\n")[: int(count)]
    assert len(whole) == int(count) > 10
    assert all(json.loads(line) for line in whole)


def test_jsonl_has_boxes_in_space_where_frames_have_depth(tmp_path):
    plain = made(0)
    depth = Depth(np.full((90, 120), 1500, np.uint16), Camera((90, 120), 100.0, 100.0, 60.0, 45.0))
    result = replace(plain, frame=replace(plain.frame, depth=depth))
    write(JsonlSink(str(tmp_path / "o.jsonl")), [result, plain])
    with_depth, without = lines(tmp_path / "o.jsonl")
    box, _ = with_depth["boxes_3d"]
    x1, _, x2, _ = with_depth["instances"][0]["box"]
    assert box["center"][2] == box["distance"] == pytest.approx(1.5)
    assert max(box["size"]) == pytest.approx((x2 - x1) * 1.5 / 100, rel=0.05)
    assert np.linalg.norm(box["rotation"]) == pytest.approx(1, abs=1e-4)
    assert "boxes_3d" not in without
