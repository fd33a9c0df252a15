"""The form of a string decides which plugin it goes to."""

import pytest

from ape_stream.errors import UsageError
from ape_stream.specs import sink_plugin, source_plugin, stream_name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shots").mkdir()
    for name in ("clip.mp4", "a.PNG", "list.txt", "odd[1].mkv", "noend"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("spec", "plugin"),
    [
        ("clip.mp4", "video"),
        ("noend", "video"),
        ("odd[1].mkv", "video"),
        ("a.PNG", "images"),
        ("shots", "images"),
        ("shots/", "images"),
        ("list.txt", "images"),
        ("shots/*.png", "images"),
        ("shots/frame_%04d.png", "images"),
        ("0", "camera"),
        ("/dev/video2", "camera"),
        ("camera://front", "camera"),
        ("RTSP://gate/cam", "rtsp"),
        ("http://host/a.m3u8", "http"),
        ("udp://0.0.0.0:5000", "udp"),
        ("synthetic://7?frames=300", "synthetic"),
        ("zmq+sub://127.0.0.1:1", "zmq+sub"),
    ],
)
def test_source(spec, plugin):
    assert source_plugin(spec) == plugin


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("spec", ["", "clip.mp5", "gone/", "with space.mp4"])
def test_what_is_nothing_is_refused(spec):
    with pytest.raises(UsageError, match="no such source"):
        source_plugin(spec)


@pytest.mark.parametrize(
    ("spec", "plugin"),
    [
        ("out.mp4", "mp4"),
        ("deep/er/out.JSONL", "jsonl"),
        ("out.json", "json"),
        ("labels/", "labels"),
        ("out/semantic/", "semantic"),
        ("panoptic/", "panoptic"),
        ("panoptic:out/x", "panoptic"),
        ("window", "window"),
        ("zmq:pub+bind:tcp://127.0.0.1:5555", "zmq"),
        ("ros2:/ape", "ros2"),
    ],
)
def test_sink(spec, plugin):
    assert sink_plugin(spec) == plugin


def test_a_present_folder_takes_label_maps(folder):
    assert sink_plugin(str(folder / "shots")) == "labels"


def test_an_empty_output_is_refused():
    with pytest.raises(UsageError, match="an output is empty"):
        sink_plugin("")


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("clips/red.mp4", "red"),
        ("0", "0"),
        ("rtsp://user:secret@gate:554/cam/1?key=abc", "gate-554-cam-1"),
        ("synthetic://7?frames=3", "7"),
        ("synthetic://", "synthetic"),
        ("shots/*.png", "stream"),
        ("日本.mp4", "日本"),
    ],
)
def test_a_stream_gets_a_name_without_secrets(spec, name):
    assert stream_name(spec, set()) == name


def test_names_differ():
    assert stream_name("b/red.mp4", {"red", "red-2"}) == "red-3"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "a/" * 3000 + "b.mp4", "clip\0.mp4"])
@pytest.mark.parametrize("plugin", [source_plugin, sink_plugin])
def test_a_name_that_no_file_can_have_is_refused_in_one_short_line(plugin, name):
    with pytest.raises(UsageError, match=r"cannot use .* as a file name") as error:
        plugin(name)
    assert len(str(error.value)) < 150
    assert "\n" not in str(error.value)


def test_a_stream_of_a_long_name_can_name_a_folder(tmp_path):
    name = stream_name("http://host/" + "\u65e5" * 300, set())
    (tmp_path / f"{name}-99").mkdir()
