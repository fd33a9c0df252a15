"""`ape-stream convert`: from files of records to formats."""

import json

import pytest
from annotated import JOB, VIDEOS, frames, load, tree, write_jsonl

from ape_stream.cli.main import main
from ape_stream.errors import ConfigError, UsageError
from ape_stream.formats.convert import Records, convert
from ape_stream.formats.records import parse_record, read_records, record_line, write_records


def test_every_record_is_read_back_as_it_was_written():
    for record in (JOB, *VIDEOS, *frames(VIDEOS[0]), *frames(VIDEOS[1], track=False)):
        line = record_line(record)
        assert parse_record(line, "x") == record
        assert line.endswith("\n")
        assert "\n" not in line[:-1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "x: line 1 is no JSON"),
        ("[" * 100_000, "x: line 1 is no JSON"),
        ("[]", "is no record"),
        ('{"stream": "a"}', "needs 'frame'"),
        ('{"video": {"name": "a", "width": 0, "height": 1}}', "at least 1"),
        ('{"job": {"prompts": [{"text": "a"}, {"text": "a"}]}}', "twice"),
        ('{"job": {"treshold": 1}}', "unknown key 'treshold'"),
    ],
)
def test_what_is_no_record_is_one_line(line, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_record(line, "x: line 1")
    assert "\n" not in str(caught.value)


def test_a_file_without_header_and_with_streams_in_turn_is_the_same(tmp_path):
    """Files of the output `jsonl` have frames only, of all streams as they came."""
    pairs = zip(*(frames(video) for video in VIDEOS), strict=True)
    with (tmp_path / "mixed.jsonl").open("w") as stream:
        write_records(stream, [frame for pair in pairs for frame in pair])
    convert([tmp_path / "mixed.jsonl"], ["coco"], tmp_path / "mixed")
    convert([write_jsonl(tmp_path / "r.jsonl")], ["coco"], tmp_path / "whole")
    names = "coco/annotations/instances_default.json"
    mixed, whole = load(tmp_path / "mixed" / names), load(tmp_path / "whole" / names)
    for key in ("images", "annotations", "categories"):
        assert mixed[key] == whole[key]
    assert whole["info"] == {
        "description": "ape_stream results",
        "model": "nano",
        "threshold": 0.3,
        "version": "0.1.0",
    }
    assert whole["videos"][0]["source"] == "in/b.mp4"
    assert whole["videos"][0]["time_base"] == [1, 25]


def test_the_frames_of_a_video_may_lie_in_several_files(tmp_path):
    lines = write_jsonl(tmp_path / "r.jsonl").read_text().splitlines(keepends=True)
    parts = [tmp_path / f"{k}.jsonl" for k in range(3)]
    for k, part in enumerate(parts):
        part.write_text("".join(lines[:2] + lines[2:][k::3]))
    convert(parts, ["csv"], tmp_path / "parts")
    convert([tmp_path / "r.jsonl"], ["csv"], tmp_path / "whole")
    assert tree(tmp_path / "parts/csv") == tree(tmp_path / "whole/csv")


def test_the_folder_of_a_job_stands_for_all_its_clips(tmp_path):
    job, a, b, *others = write_jsonl(tmp_path / "r.jsonl").read_text().splitlines(keepends=True)
    halves = {"a": [job, a, *others[:4]], "deep/b": [job, b, *others[4:]]}
    for name, lines in halves.items():
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "results.jsonl").write_text("".join(lines))
    convert([tmp_path / "out"], ["csv"], tmp_path / "folder")
    convert([tmp_path / "r.jsonl"], ["csv"], tmp_path / "whole")
    assert tree(tmp_path / "folder/csv") == tree(tmp_path / "whole/csv")
    with pytest.raises(UsageError, match=r"no results.jsonl in .*whole"):
        convert([tmp_path / "whole"], ["csv"], tmp_path / "none")


def test_what_contradicts_itself_is_named_with_its_line(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[2]]))
    with pytest.raises(ConfigError, match=r"r.jsonl: line 12: frame 0 of .* is there twice"):
        convert([path], ["csv"], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    path.write_text("".join([*lines, '{"job": {"model": "other"}}\n']))
    with pytest.raises(ConfigError, match="line 12 contradicts"):
        Records([path])


def test_broken_and_empty_files_are_one_line(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        Records([tmp_path / "none.jsonl"])
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UsageError, match="no record in"):
        Records([tmp_path / "empty.jsonl"])
    path = write_jsonl(tmp_path / "cut.jsonl")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ConfigError, match="line 11 is no JSON"):
        Records([path])
    path.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="line 1 is no JSON"):
        Records([path])
    assert len(list(read_records(write_jsonl(tmp_path / "r.jsonl")))) == 11


def test_the_command_writes_formats_and_says_what_is_lost(tmp_path, capsys):
    records = write_jsonl(tmp_path / "r.jsonl")
    words = ["convert", str(records), "--format", "cvat", "--format", "yolo", "--val", "b*"]
    assert main([*words, "--out-dir", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}/out/cvat: 8 images, 24 instances\n  not kept: 4 holes\n" in out
    assert (tmp_path / "out/yolo/labels/val/b_000000.txt").exists()
    assert main([*words, "--out-dir", str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--out-dir", str(tmp_path / "out"), "--overwrite", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary[0]["losses"] == {"holes": 4}


def test_a_pattern_that_fits_no_video_is_refused(tmp_path, capsys):
    records = write_jsonl(tmp_path / "r.jsonl")
    words = ["convert", str(records), "--format", "yolo", "--val", "c?", "--out-dir", str(tmp_path)]
    assert main(words) == 2
    assert "no video is called 'c?'; there are: b, clip a/" in capsys.readouterr().err
