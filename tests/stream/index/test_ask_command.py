"""`ape-stream ask`: what it prints, what it writes, and what it refuses."""

import json
import re
from dataclasses import fields
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from made_index import SIZE, live, made_index, same_instances

from ape_stream.annotation.records import instances_of
from ape_stream.asking import recheck as recheck_room
from ape_stream.asking.recheck import recheck
from ape_stream.asking.videos import Videos
from ape_stream.cli.main import main
from ape_stream.errors import ConfigError
from ape_stream.index.asking import open_index
from ape_stream.types import Instances

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An index that dropped some queries, and its video next to it."""
    folder = tmp_path_factory.mktemp("asked")
    made = made_index(folder, seed=3, keep=0.7)
    writer = cv2.VideoWriter(
        str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (SIZE[1], SIZE[0])
    )
    for k in range(10):
        writer.write(np.full((*SIZE, 3), 20 * k, np.uint8))
    writer.release()
    return made


def ask(made, *given):
    return main(["ask", str(made.root), *given, "--bank", str(made.bank)])


def test_what_is_printed(made, capsys):
    assert ask(made, "cat, dog", "--threshold", "0.5", "--threshold", "dog=0.9") == 0
    out = capsys.readouterr().out
    assert out.startswith("cat: ")
    assert "searched 10 frames; exact" in out
    assert ask(made, "pole", "--threshold", "0.1", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["prompts"] == [{"text": "pole", "threshold": 0.1, "mode": "vocabulary"}]
    assert not answer["exact"]
    assert {one["video"] for one in answer["recheck"]} == {"clip"}
    expected = live(made, ["pole"], [0.1])
    scores = [one["score"] for track in answer["tracks"] for one in track["frames"]]
    unsure = {one["frame"] for one in answer["recheck"]}
    assert len(scores) <= sum(map(len, expected))
    assert unsure
    assert ask(made, "pole", "--threshold", "0.1") == 0
    assert "--recheck runs the network" in capsys.readouterr().out


def test_formats_hold_what_a_run_would_have_written(made, tmp_path, capsys):
    out = tmp_path / "out"
    given = ("cat, sky", "--threshold", "0.5", "--format", "coco,cvat", "--out-dir", str(out))
    assert ask(made, *given, "--save-frames", "png") == 0
    assert str(out / "results.jsonl") in capsys.readouterr().out
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert lines[0]["job"]["prompts"][0]["text"] == "cat"
    expected = live(made, ("cat", "sky"), [0.5, 0.5])
    for values, own in zip(lines[2:], expected, strict=True):
        read = instances_of(values)
        assert np.array_equal(read.prompt_ids, own.prompt_ids)
        assert all(
            np.array_equal(a.bitmap, b.bitmap) for a, b in zip(read.masks, own.masks, strict=True)
        )
    coco = json.loads(next((out / "coco" / "annotations").glob("*.json")).read_text())
    assert len(coco["annotations"]) == sum(map(len, expected))
    saved = sorted(path.name for path in (out / "frames").rglob("*.png"))
    assert saved == [f"{k:06d}.png" for k, own in enumerate(expected) if len(own)]
    assert ask(made, *given) == 2
    assert "exists already" in capsys.readouterr().err
    assert ask(made, *given, "--overwrite") == 0


def test_an_unknown_format_is_refused_before_anything_is_written(made, tmp_path, capsys):
    assert ask(made, "cat", "--format", "coco,cocoa", "--out-dir", str(tmp_path / "out")) == 2
    assert "no format 'cocoa'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_sheet_and_a_clip(made, tmp_path):
    sheet, clip = tmp_path / "sheet.png", tmp_path / "clip.mp4"
    given = ("cat, dog", "--threshold", "0.5", "--to", "0.6")
    assert ask(made, *given, "--output", str(sheet), "--output", str(clip)) == 0
    assert cv2.imread(str(sheet)).shape[0] > SIZE[0]
    video = cv2.VideoCapture(str(clip))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 6


def test_nothing_found_writes_no_image(made, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert ask(made, "cat", "--from", "50", "--output", str(sheet)) == 0
    assert not sheet.exists()
    out = capsys.readouterr().out
    assert str(sheet) not in out
    assert "nothing was found: no image and no output is written" in out


def test_the_network_on_just_the_frames_that_are_not_certain(made):
    index = open_index(made.root, bank=made.bank)
    answer = index.ask("pole, cat", threshold=0.3)
    unsure = {one.index for one in answer.recheck}
    assert 0 < len(unsure) < 10
    expected, seen = live(made, ("pole", "cat"), [0.3, 0.3]), []

    class Network:
        def prepare(self, prompts):
            assert [prompt.kind for prompt in prompts] == ["vocabulary"] * 2

        def perceive(self, frames):
            seen.extend(frame.index for frame in frames)
            return [expected[frame.index] for frame in frames]

    checked = recheck(index, answer, Network(), Videos(made.root))
    assert set(seen) == unsure
    assert checked.exact
    found = {frame.index: frame.instances() for frame in checked.frames}
    for at, own in enumerate(expected):
        assert same_instances(found.get(at, Instances.empty(SIZE)), own)
    # What the network finds again is on the same track of the index.
    known = {track.object for track in answer.tracks} - {None}
    assert known & {track.object for track in checked.tracks}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resizing": "384"}, "resizes images in another way (384) than for the index (256)"),
        ({"alignment": "other"}, "has other weights"),
        ({}, None),
    ],
)
def test_another_network_checks_no_frames(made, monkeypatch, change, message):
    alignment = {f.name: getattr(made.head, f.name) for f in fields(made.head)}
    del alignment["basis"]
    if "alignment" in change:
        change = {"alignment": {**alignment, "bias_offset": np.float32(7)}}
    values = {"alignment": alignment, "resizing": "256", "weights": "other", **change}
    network = SimpleNamespace(facts=SimpleNamespace(**values), perceive_with_maps=None,
                              prepare=None, perceive=None, threshold=0.5)  # fmt: skip
    monkeypatch.setattr(recheck_room, "make", lambda *_, **__: network)
    monkeypatch.setattr(recheck_room, "GivesQueries", SimpleNamespace)
    index = open_index(made.root, bank=made.bank)
    if message is None:
        assert recheck_room.open_network(index) is network
        return
    with pytest.raises(ConfigError, match=re.escape(message)):
        recheck_room.open_network(index)


def test_the_best_frames_of_a_sentence(made):
    index = open_index(made.root, bank=made.bank)
    index._embeddings._known["the red one"] = made.embeddings[0]
    answer = index.ask("the red one", threshold=0.5)

    class Network:
        def prepare(self, prompts):
            assert [prompt.kind for prompt in prompts] == ["sentence"]

        def perceive(self, frames):
            return [Instances.empty(frame.size) for frame in frames]

    checked = recheck(index, answer, Network(), Videos(made.root))
    assert answer.frames
    assert not checked.frames
    assert checked.modes == ("sentence on its best frames",)


def test_more_like_this_in_a_range_of_time(made, capsys):
    assert ask(made, "--like", "clip:1", "--from", "0.2", "--to", "0.5", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["searched_frames"] == 3
    frames = {one["frame"] for track in answer["tracks"] for one in track["frames"]}
    assert frames == {2, 3, 4}
    assert ask(made, "--like", "clip:1", "--from", "9", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert not answer["tracks"]
    assert answer["searched_frames"] == 0


def test_more_like_this(made, capsys):
    assert ask(made, "--like", "clip:1", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["tracks"][0]["object"] == 1
    assert answer["prompts"][0]["mode"] == "similarity"
    assert not answer["exact"]
    assert "not calibrated" in answer["notes"][0]
    for track in answer["tracks"]:  # one region of an object in a frame
        seen = [one["frame"] for one in track["frames"]]
        assert seen == sorted(set(seen))
    box = ",".join(str(v) for v in (made.boxes[2, 0] * [48, 36, 48, 36]).tolist())
    assert ask(made, "--like", f"clip#2:{box}", "--json") == 0
    assert json.loads(capsys.readouterr().out)["tracks"][0]["object"] is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["cat", "--from", "5", "--to", "4"], "the range of time is empty"),
        (["cat", "--threshold", "much"], "--threshold much: give 0.5"),
        (["cat", "--threshold", "dog=0.5"], "no such word is asked"),
        (["cat", "--video", "other"], "no video is called 'other'"),
        (["cat", "--like", "clip:1"], "give words or --like, not both"),
        (["--like", "clip:1", "--threshold", "0.4"], "--like has no --threshold"),
        (["--like", "clip"], "give VIDEO#FRAME:x1,y1,x2,y2 or VIDEO:TRACK"),
        (["--like", "clip:99"], "has no object 99"),
        (["--like", "clip#77:1,2,3,4"], "frame 77 of clip is not in the index"),
        (["--like", "clip#1:1,2,3"], "a box is x1,y1,x2,y2"),
        ([], "no prompt given"),
        (["x" * 1001], "more than 1000"),
        (["cat", "--save-frames", "gif"], "--save-frames is jpg or png"),
        (["cat", "--output", "s.png", "--sources", "/nowhere"], "give the folder of the videos"),
    ],
)
def test_what_cannot_be_asked_is_one_line(made, given, message, capsys):
    assert ask(made, *given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_empty_range_of_time_is_said(made, capsys):
    assert ask(made, "cat", "--from", "9") == 0
    said = capsys.readouterr().out
    assert "searched 0 frames" in said
    assert "no frame of the index is in this range of time" in said


def test_what_is_no_index(tmp_path, capsys):
    assert main(["ask", str(tmp_path), "cat"]) == 2
    assert "is no index" in capsys.readouterr().err


def test_a_damaged_part_ends_with_code_3(tmp_path, capsys):
    made = made_index(tmp_path, seed=1)
    (made.root / "parts/clip/000001.frames.arrow").unlink()
    assert ask(made, "cat", "--threshold", "0.3") == 3
    assert "missing: parts/clip/000001, 0:00.4 to 0:00.7:" in capsys.readouterr().out
