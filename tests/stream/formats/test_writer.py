"""What all writers share: order, names, and outputs that are whole or not there."""

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from annotated import JOB, VIDEOS, blank, frames, instance, tree, write_to

from ape_stream.errors import ConfigError, SinkError
from ape_stream.formats.records import FrameRecord, VideoRecord
from ape_stream.formats.registry import FORMATS, open_writer

STREAMED = ("fiftyone", "ytvis", "cvat", "yolo-detect", "mots")


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_depend_on_the_records_alone(written, tmp_path, name):
    with open_writer(name, tmp_path, JOB) as writer:
        write_to(writer)
    assert tree(tmp_path / name) == {
        path: data for path, data in tree(written[0] / name).items() if "/images/" not in f"/{path}"
    }


IMAGES = {
    "coco": "images/b/000000.png",
    "coco-panoptic": "images/b/000000.png",
    "cvat": None,
    "cvat-images": "images/b/000000.png",
    "csv": None,
    "datumaro": "images/b/000000.png",
    "fiftyone": "data/b/000000.png",
    "labelme": "b/000000.png",
    "labelstudio": None,
    "masks": None,
    "mot": "b/img1/000001.png",
    "mots": "b/img1/000001.png",
    "voc": "JPEGImages/b_000000.png",
    "yolo": "images/val/b_000000.png",
    "yolo-detect": "images/val/b_000000.png",
    "ytvis": "JPEGImages/b/000000.png",
}
"""Where each format's readers look for the first image of `b`."""


@pytest.mark.parametrize("name", FORMATS)
def test_images_are_linked_to_where_readers_look_for_them(tmp_path, name):
    saved = tmp_path / "frames/b/000000.png"
    blank(saved)
    first, second, *_ = frames(VIDEOS[1])
    with open_writer(name, tmp_path, JOB, images=tmp_path / "frames") as writer:
        writer.begin_video(VIDEOS[1])
        writer.frame(replace(first, file="b/000000.png"))
        writer.frame(second)  # whose image was not saved
        writer.end_video()
    linked = [path for path in (tmp_path / name).rglob("*") if path.samefile(saved)]
    wanted = [] if IMAGES[name] is None else [tmp_path / name / IMAGES[name]]
    assert linked == wanted


@pytest.mark.parametrize("name", FORMATS)
def test_regions_without_a_track_and_empty_masks_can_be_written(tmp_path, name):
    nothing = replace(instance("pixel"), mask=replace(instance("pixel").mask, counts="PP3"))
    frame = next(frames(VIDEOS[1], track=False))
    with open_writer(name, tmp_path, JOB) as writer:
        writer.begin_video(VIDEOS[1])
        writer.frame(replace(frame, instances=(*frame.instances, nothing)))
        writer.end_video()
    assert writer.instances == 5
    assert (tmp_path / name / "ape_stream.json").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_at_all_can_be_written(tmp_path, name):
    with open_writer(name, tmp_path, JOB):
        pass
    assert json.loads((tmp_path / name / "ape_stream.json").read_text())["images"] == 0


@pytest.mark.parametrize("name", FORMATS)
def test_a_writer_that_fails_leaves_nothing(tmp_path, name):
    with pytest.raises(RuntimeError):
        fail_inside(open_writer(name, tmp_path, JOB))
    assert list(tmp_path.iterdir()) == []


def fail_inside(writer):
    with writer:
        writer.begin_video(VIDEOS[0])
        writer.frame(next(frames(VIDEOS[0])))
        raise RuntimeError


def test_a_killed_writer_leaves_a_part_that_the_next_one_replaces(tmp_path):
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from annotated import *\n"
        "from ape_stream.formats.registry import open_writer\n"
        "writer = open_writer('coco', sys.argv[2], JOB).__enter__()\n"
        "write_to(writer); os._exit(9)"
    )
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", code, here, str(tmp_path)], check=False)
    assert [path.name for path in tmp_path.iterdir()] == ["coco.part"]
    with open_writer("coco", tmp_path, JOB) as writer:
        write_to(writer)
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


def test_only_what_was_written_here_is_replaced(tmp_path):
    with open_writer("csv", tmp_path, JOB):
        pass
    with pytest.raises(ConfigError, match="exists already"):
        open_writer("csv", tmp_path, JOB).__enter__()
    with open_writer("csv", tmp_path, JOB, overwrite=True) as writer:
        write_to(writer)
    assert writer.instances
    (tmp_path / "csv/ape_stream.json").unlink()
    with pytest.raises(ConfigError, match="not written by ape-stream"):
        open_writer("csv", tmp_path, JOB, overwrite=True).__enter__()
    assert (tmp_path / "csv/instances.csv").exists()


def test_two_writers_of_one_folder_are_refused(tmp_path):
    with open_writer("csv", tmp_path, JOB), pytest.raises(ConfigError, match="another run"):
        open_writer("csv", tmp_path, JOB).__enter__()


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "csv").write_text("mine")
    with pytest.raises(SinkError, match="is a file"):
        open_writer("csv", tmp_path, JOB, overwrite=True).__enter__()


def test_what_contradicts_the_video_is_refused(tmp_path):
    first, second, *_ = frames(VIDEOS[0])
    with open_writer("csv", tmp_path, JOB) as writer:
        with pytest.raises(ConfigError, match="outside of its video"):
            writer.frame(first)
        writer.begin_video(VIDEOS[0])
        writer.frame(second)
        with pytest.raises(ConfigError, match="not in order"):
            writer.frame(first)
        with pytest.raises(ConfigError, match="64x48"):
            writer.frame(replace(first, frame=7, size=(9, 9)))
        with pytest.raises(ConfigError, match="'cat' is not among"):
            writer.frame(
                replace(first, frame=7, instances=(replace(instance("ring"), prompt="cat"),))
            )
        with pytest.raises(ConfigError, match="has not ended"):
            writer.begin_video(VIDEOS[1])
        writer.end_video()
        with pytest.raises(ConfigError, match="share the name"):
            writer.begin_video(VideoRecord("clip a_Prüfung 猫", 64, 48))


def test_an_unknown_format_is_named_with_the_others(tmp_path):
    with pytest.raises(ConfigError, match="no format 'kitti'; there are: coco, coco-panoptic"):
        open_writer("kitti", tmp_path, JOB)


def test_images_of_a_folder_keep_their_names_and_sizes(tmp_path):
    video = VideoRecord("photos", 64, 48)
    with open_writer("labelme", tmp_path, JOB) as writer:
        writer.begin_video(video)
        for k, file in enumerate(("a/x.jpg", "b/x.jpg", "c/ü.png")):
            writer.frame(FrameRecord("photos", k, 0.0, (48 + k, 64), (), file=file))
        writer.end_video()
    files = sorted(path.name for path in (tmp_path / "labelme/photos").iterdir())
    assert files == ["x-000001.json", "x.json", "ü.json"]


@pytest.mark.parametrize("name", STREAMED)
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path, name):
    peaks = []
    frame = next(frames(VIDEOS[1], [("pixel", "line")]))
    for count in (30, 80):
        video = replace(VIDEOS[1], frames=count)
        tracemalloc.start()
        with open_writer(name, tmp_path / str(count), JOB) as writer:
            writer.begin_video(video)
            for k in range(count):
                writer.frame(replace(frame, frame=k))
            writer.end_video()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 50 frames more have 100 regions more: a few numbers of each, and no mask or text.
    assert np.diff(peaks)[0] < 100 * 300
