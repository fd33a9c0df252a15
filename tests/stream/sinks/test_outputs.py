"""Nothing is lost: sources, earlier results, other runs' results, what was cut short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from results import made

import ape_stream
from ape_stream.errors import ApeStreamError, ConfigError, SinkError, UsageError
from ape_stream.formats.records import read_records
from ape_stream.sinks.coco import CocoSink
from ape_stream.sinks.jsonl import JsonlSink
from ape_stream.sinks.labels import LabelsSink
from ape_stream.sinks.recover import recover
from ape_stream.sinks.sheet import SheetSink
from ape_stream.sinks.video import VideoSink
from ape_stream.testing import OraclePerceiver, frames

SINKS = {
    "o.json": CocoSink,
    "o.jsonl": JsonlSink,
    "o.mp4": VideoSink,
    "o.mkv": VideoSink,
    "o.png": SheetSink,
    "labels": LabelsSink,
}
EVERY = pytest.mark.parametrize(("name", "kind"), SINKS.items(), ids=SINKS)


def write(sink, results):
    with sink:
        for result in results:
            sink.write(result)


def cut_short(sink, count):
    with pytest.raises(KeyboardInterrupt), sink:  # noqa: PT012
        for k in range(count):
            sink.write(made(k))
        raise KeyboardInterrupt


def everything(folder):
    """The bytes of every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def images(tmp_path):
    """Three images in a folder of their own."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for frame in frames(3):
        cv2.imwrite(str(folder / f"{frame.index}.png"), frame.image)
    return folder


def run(source, *outputs, **more):
    list(ape_stream.open(source, "cup", model=OraclePerceiver(), outputs=outputs, **more))


# ------------------------------------------------------------------------------ earlier results


@EVERY
def test_an_older_output_is_refused_and_left_alone(tmp_path, name, kind):
    write(kind(str(tmp_path / name)), [made(0)])
    before = everything(tmp_path)
    sink = kind(str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"already.*overwrite=True"):
        sink.claim(["cam"])
    with pytest.raises(ConfigError, match=r"already.*overwrite=True"), sink:
        pass
    assert everything(tmp_path) == before


@EVERY
def test_overwriting_keeps_the_older_output_until_the_new_one_is_whole(tmp_path, name, kind):
    write(kind(str(tmp_path / name)), [made(0), made(1)])
    before = everything(tmp_path)
    with kind(str(tmp_path / name), overwrite=True) as sink:
        sink.claim(["cam"])
        sink.write(made(5))
        now = everything(tmp_path)
        assert {path: now[path] for path in before} == before
    after = everything(tmp_path)
    assert not any(".part" in path for path in after)
    assert after != before
    if name == "labels":
        assert list(after) == ["labels/cam/000005.png", "labels/legend.jsonl"]
    else:
        assert list(after) == [name]


@EVERY
def test_a_part_of_an_earlier_run_is_not_thrown_away_unasked(tmp_path, name, kind):
    cut_short(kind(str(tmp_path / name)), 2)
    before = everything(tmp_path)
    assert before
    assert all(path.startswith(f"{name}.part") for path in before)
    with (
        pytest.raises(ConfigError, match=r"ape-stream recover .*\.part"),
        kind(str(tmp_path / name)),
    ):
        pass
    assert everything(tmp_path) == before
    write(kind(str(tmp_path / name), overwrite=True), [made(7)])
    assert not any(".part" in path or "000000" in path for path in everything(tmp_path))


def test_label_maps_replace_no_image_that_they_did_not_write(tmp_path, images):
    with pytest.raises(ConfigError, match=r"shots/0\.png was not written by an earlier run"):
        LabelsSink(str(tmp_path), overwrite=True).claim(["shots"])
    assert len(list(images.iterdir())) == 3


def test_overwriting_label_maps_touches_nothing_else(tmp_path):
    folder = tmp_path / "labels"
    write(LabelsSink(str(folder)), [made(0), made(1)])
    (folder / "notes.txt").write_text("mine")
    (folder / "other").mkdir()
    (folder / "other" / "x.png").write_text("mine")
    write(LabelsSink(f"{folder}/", overwrite=True), [made(3)])
    assert list(everything(tmp_path)) == [
        "labels/cam/000003.png",
        "labels/legend.jsonl",
        "labels/notes.txt",
        "labels/other/x.png",
    ]


def test_a_legend_of_a_stranger_removes_nothing_outside(tmp_path):
    (tmp_path / "mine.png").write_text("mine")
    folder = tmp_path / "labels"
    folder.mkdir()
    lines = [{"file": "../mine.png"}, {"file": str(tmp_path / "mine.png")}, {"no": 1}, [], 3]
    (folder / "legend.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write(LabelsSink(str(folder), overwrite=True), [made(0)])
    assert (tmp_path / "mine.png").read_text() == "mine"


@pytest.mark.parametrize("name", [n for n in SINKS if n != "labels"])
def test_a_folder_of_that_name_is_refused(tmp_path, images, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f"cannot write .*{name}: it is a folder"):
        run(str(images), tmp_path / name)
    assert list((tmp_path / name).iterdir()) == []


# ------------------------------------------------------------------------------------ sources


@pytest.mark.parametrize("how", ["itself", "hard link", "symbolic link", "part"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_the_source_is_refused(tmp_path, how, overwrite):
    source, output = tmp_path / "x.mp4", tmp_path / "y.mp4"
    write(VideoSink(str(source)), [made(k) for k in range(3)])
    if how == "itself":
        output = tmp_path / "new" / ".." / "x.mp4"
        (tmp_path / "new").mkdir()
    elif how == "hard link":
        os.link(source, output)
    elif how == "symbolic link":
        output.symlink_to(source)
    else:
        source = source.rename(tmp_path / "y.mp4.part")
    before = source.read_bytes()
    with pytest.raises(ConfigError, match="is both an output and the source"):
        run(str(source), tmp_path / "a.json", output, overwrite=overwrite)
    assert source.read_bytes() == before
    assert not list(tmp_path.glob("a.json*"))


@pytest.mark.parametrize("spec", ["shots", "shots/*.png", "shots/%d.png", "list.txt"])
def test_an_output_that_is_one_of_many_images_is_refused(tmp_path, images, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("shots/0.png\nshots/1.png\nshots/2.png\n")
    os.link("shots/2.png", "sheet.png")
    before = everything(images)
    with pytest.raises(ConfigError, match=r"sheet.png is both an output and the source"):
        run(spec, "sheet.png", overwrite=True)
    assert everything(images) == before


# ---------------------------------------------------------------------------- outputs among them


@pytest.mark.parametrize("pair", [("a.json", "a.json"), ("b/../a.json", "a.json"), ("l/", "l/")])
def test_one_output_twice_is_refused_before_anything_is_opened(tmp_path, images, pair):
    (tmp_path / "b").mkdir()
    with pytest.raises(ConfigError, match="is named by two outputs"):
        run(str(images), *(f"{tmp_path}/{name}" for name in pair))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "shots"]


@EVERY
def test_two_runs_on_one_output_are_refused(tmp_path, name, kind):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from results import made\n"
        f"from {kind.__module__} import {kind.__name__} as Sink\n"
        f"with Sink({str(tmp_path / name)!r}) as sink:\n"
        "    sink.write(made(0)); print('open', flush=True); sys.stdin.readline()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], env=env, **pipes) as other:
        assert other.stdout.readline() == "open\n"
        for overwrite in (False, True):
            with (
                pytest.raises(ConfigError, match="is being written by another run"),
                kind(str(tmp_path / name), overwrite=overwrite),
            ):
                pass
        if name != "o.png":  # a sheet is written at the end
            with pytest.raises(ConfigError, match="is being written by another run"):
                recover(tmp_path / f"{name}.part")
        other.communicate("\n")
    assert other.returncode == 0
    kind(str(tmp_path / name), overwrite=True).claim(["cam"])
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("size", [0, 20, -1])
def test_a_sheet_that_is_not_whole_is_not_recovered(tmp_path, size):
    image = cv2.imencode(".png", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    part = tmp_path / "o.png.part"
    part.write_bytes(image[: len(image) // 2] if size < 0 else image[:size])
    with pytest.raises(SinkError, match="no whole image"):
        recover(part)
    assert part.exists()
    assert not (tmp_path / "o.png").exists()
    part.write_bytes(image)
    assert recover(part) == (tmp_path / "o.png", "the frames until then")


# ------------------------------------------------------------------------------------- {stream}


@pytest.mark.parametrize("name", [*list(SINKS)[:-1], "labels/"])
def test_every_output_may_be_named_by_its_stream(tmp_path, images, name):
    other = tmp_path / "other"
    images.rename(tmp_path / "a")
    other.mkdir()
    cv2.imwrite(str(other / "0.png"), np.zeros((24, 32, 3), np.uint8))
    run([str(tmp_path / "a"), str(other)], f"{tmp_path}/out-{{stream}}/{name}")
    made_files = everything(tmp_path)
    for stream, count in (("a", 3), ("other", 1)):
        found = [path for path in made_files if path.startswith(f"out-{stream}/")]
        assert len(found) == (count + 1 if name.startswith("labels") else 1)


@pytest.mark.parametrize("name", ["{strem}.json", "{}.json", "{stream}-{time}/"])
def test_a_placeholder_that_stands_for_nothing_is_refused(tmp_path, images, name):
    with pytest.raises(ConfigError, match=r"stands for nothing, only \{stream\} does"):
        run(str(images), f"{tmp_path}/out/{name}")
    assert not (tmp_path / "out").exists()


def test_several_streams_in_one_video_are_refused_at_the_start(tmp_path, images):
    (tmp_path / "more").mkdir()
    cv2.imwrite(str(tmp_path / "more" / "0.png"), np.zeros((24, 32, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"one stream, and there are 2: .*\{stream\}"):
        run([str(images), str(tmp_path / "more")], tmp_path / "all.json", tmp_path / "all.mp4")
    assert not list(tmp_path.glob("all*"))


# ------------------------------------------------------------------------------------ odd names


@pytest.mark.parametrize("stem", ["x" * 300, "x" * 250, "a\0b"])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".mp4", ".png", "/"])
def test_a_name_that_no_file_can_have_is_one_line(tmp_path, images, stem, suffix):
    if suffix == "/" and stem == "x" * 250:
        stem += "xxxxx"
    with pytest.raises(ApeStreamError) as error:
        run(str(images), f"{tmp_path}/{stem}{suffix}")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(("cannot write", "cannot use"))


def test_a_pipe_is_written_directly(tmp_path):
    os.mkfifo(tmp_path / "o.jsonl")
    with subprocess.Popen(["cat", tmp_path / "o.jsonl"], stdout=subprocess.PIPE) as reader:
        write(JsonlSink(str(tmp_path / "o.jsonl")), [made(0), made(1)])
        out = reader.communicate(timeout=30)[0]
    assert len(out.splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["o.jsonl"]


# ------------------------------------------------------------------------------------- recover


def test_a_recording_of_rerun_gets_its_name_where_it_holds_something(tmp_path):
    part = tmp_path / "o.rrd.part"
    for content in (b"", b"RR", b"other"):
        part.write_bytes(content)
        with pytest.raises(SinkError, match="nothing to recover"):
            recover(part)
    part.write_bytes(b"RRF2" + bytes(2_000_000))
    assert recover(part) == (tmp_path / "o.rrd", "2.0 MB for rerun")
    assert (tmp_path / "o.rrd").read_bytes()[:4] == b"RRF2"
    assert not part.exists()


@EVERY
def test_what_was_cut_short_is_recovered(tmp_path, name, kind):
    cut_short(kind(str(tmp_path / name)), 40)
    path, holds = recover(f"{tmp_path / name}.part")
    assert path == tmp_path / name
    assert [p.name for p in tmp_path.iterdir()] == [name]
    if name == "o.png":
        assert cv2.imread(str(path)) is not None
        with Image.open(path) as image:
            assert "partial" in image.info["Comment"]
        return
    assert holds == "40 frames"
    if name == "o.json":
        document = json.loads(path.read_text())
        assert document["info"]["partial"] is True
        assert len(document["images"]) == 40
        assert len(document["annotations"]) == 80
        names = {category["id"] for category in document["categories"]}
        assert {one["category_id"] for one in document["annotations"]} <= names
    elif name == "o.jsonl":
        lines = list(read_records(path))
        assert [line.frame for line in lines] == list(range(40))
        assert [line.frame for line in lines if line.partial] == [39]
    elif name == "labels":
        assert len(list(path.glob("cam/*.png"))) == 40
        lines = [json.loads(line) for line in (path / "legend.jsonl").read_text().splitlines()]
        assert [bool(line.get("partial")) for line in lines] == [False] * 39 + [True]
    else:
        with av.open(str(path)) as video:
            assert "partial" in {k.lower(): v for k, v in video.metadata.items()}["comment"]
            assert [round(f.time, 2) for f in video.decode(video=0)][::13] == [0, 0.52, 1.04, 1.56]


@pytest.mark.parametrize("name", ["o.json", "o.jsonl", "labels", "o.mp4", "o.mkv"])
def test_a_torn_end_is_left_out(tmp_path, name):
    cut_short(SINKS[name](str(tmp_path / name)), 40)
    part = tmp_path / f"{name}.part"
    torn = part / "legend.jsonl.part" if name == "labels" else part
    torn.write_bytes(torn.read_bytes()[: -700 if name[2:] in {"mp4", "mkv"} else -30])
    _, holds = recover(part)
    assert 25 <= int(holds.split()[0]) <= 39


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gone.json.part", "there is no"),
        ("o.json", "is not left from a run"),
        ("o.txt.part", "is not left from a run"),
        ("bag", "bag is a bag: what a killed run wrote is read as it is"),
        ("bag/bag_0.mcap", "is a bag"),
    ],
)
def test_what_is_no_part_is_refused(tmp_path, name, says):
    (tmp_path / "o.json").touch()
    (tmp_path / "o.txt.part").touch()
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag/bag_0.mcap").touch()
    with pytest.raises(UsageError, match=says):
        recover(tmp_path / name)


@pytest.mark.parametrize("name", ["o.json", "o.jsonl", "o.mp4", "o.mkv"])
def test_a_part_without_a_frame_is_one_line_and_stays(tmp_path, name):
    part = tmp_path / f"{name}.part"
    part.write_bytes(b'{"image": {"id"' * 3)
    with pytest.raises(SinkError, match=r"no whole frame|no frame that can be read") as error:
        recover(part)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [part.name]


@EVERY
def test_recovering_replaces_nothing_unasked(tmp_path, name, kind):
    write(kind(str(tmp_path / name)), [made(0)])
    cut_short(kind(str(tmp_path / name), overwrite=True), 2)
    with pytest.raises(ConfigError, match="exists already"):
        recover(tmp_path / f"{name}.part")
    recover(tmp_path / f"{name}.part", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]
