"""Damaged files of every format are read or refused in one line; `run.py` tries thousands."""

import json

import av
import pytest
from mutants import mutant
from run import try_format
from targets import TARGETS, available, refused

from ape_stream.config import load
from ape_stream.errors import ConfigError, SinkError, SourceError
from ape_stream.sinks.recover import recover
from ape_stream.sources.video import VideoSource

COUNTS = {
    **dict.fromkeys(("mcap", "db3"), 3),
    **dict.fromkeys(("mov", "webm", "flv", "mpg", "mjpeg"), 10),
    **dict.fromkeys(("mp4", "ts", "mkv", "avi", "h264", "gif", "mp4.part", "mkv.part"), 20),
}
"""Fewer of those that take long."""


@pytest.mark.parametrize("name", available())
def test_damaged_files_are_read_or_refused(name, tmp_path):
    target = TARGETS[name]
    path = tmp_path / f"m{target.suffix}"
    target.make(path)
    sound = path.read_bytes()
    assert refused(target, path) is None
    refusals = 0
    for seed in range(COUNTS.get(name, 50)):
        path.write_bytes(mutant(sound, seed))
        refusals += refused(target, path) is not None
    assert refusals or name == "prompts", "no file was damaged"


def test_the_search_finds_what_fails_and_goes_on(tmp_path, monkeypatch):
    def read(path):
        first = path.read_bytes()[:1]
        if first == b"1":
            raise KeyError(first)
        assert first != b"2", "crashes"

    monkeypatch.setitem(TARGETS, "toml", TARGETS["toml"].__class__(".x", _digits, read))
    monkeypatch.setattr("run.mutant", lambda _, seed: str(seed).encode())
    found = dict(try_format("toml", range(4), tmp_path))
    assert sorted(found) == [1, 2]
    assert "KeyError" in found[1]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["toml-1.x", "toml-2.x"]


def _digits(path):
    path.write_text("0")


# ------------------------------------------------------------------------- what was found by it


def test_a_codec_that_does_not_exist_is_named(tmp_path):
    path = tmp_path / "a.mp4"
    TARGETS["mp4"].make(path)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(SourceError, match=r"a\.mp4 .*codec"):
        VideoSource(str(path)).__enter__()


def test_a_part_without_video_is_refused(tmp_path):
    path = tmp_path / "a.mkv.part"
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(SinkError, match="holds no"):
        recover(path)


def test_json_and_toml_that_are_nested_too_deep(tmp_path):
    deep = "[" * 100_000
    (tmp_path / "a.toml").write_text(f"sources = {deep}")
    with pytest.raises(ConfigError, match="is not TOML"):
        load(tmp_path / "a.toml")
    (tmp_path / "a.jsonl.part").write_text(f"{deep}\n")
    with pytest.raises(SinkError, match="nothing to recover"):
        recover(tmp_path / "a.jsonl.part")


@pytest.mark.parametrize("line", ["{}", '{"image": 1}', '{"image": {}, "annotations": 1}'])
def test_a_line_that_is_no_frame_ends_the_part(tmp_path, line):
    part = tmp_path / "a.json.part"
    TARGETS["json.part"].make(part)
    part.write_text(part.read_text() + line + "\n")
    path, holds = recover(part, overwrite=True)
    assert holds == "8 frames"
    assert len(json.loads(path.read_text())["images"]) == 8
