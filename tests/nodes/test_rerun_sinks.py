import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ape_nodes.benchmarks import scene
from ape_nodes.rerun_sinks import RerunFileSink, RerunSink
from ape_stream.errors import ConfigError, PluginError, SinkError


class FakeRecording:
    """Keeps what is logged, as (path, what)."""

    def __init__(self, _application):
        self.logged = []
        self.times = []
        self.target = None

    def save(self, path):
        self.target = path
        path.write_bytes(b"rrd")

    def connect_grpc(self, url):
        self.target = url

    def spawn(self):
        self.target = "viewer"

    def set_time(self, name, **value):
        self.times.append((name, value))

    def log(self, path, what, *, strict):
        assert strict
        if path[-1] == "refuse":
            raise ValueError("no")
        self.logged.append(("/".join(path), what))

    def flush(self, timeout_sec):
        assert timeout_sec > 0

    def disconnect(self):
        self.logged.append(("disconnect", None))


@pytest.fixture
def rerun(monkeypatch):
    kinds = {
        name: lambda *given, _name=name, **named: (_name, given, named)
        for name in ("EncodedImage", "SegmentationImage", "Boxes2D", "AnnotationContext")
    }
    fake = SimpleNamespace(
        RecordingStream=FakeRecording, Box2DFormat=SimpleNamespace(XYXY="xyxy"), **kinds
    )
    monkeypatch.setitem(sys.modules, "rerun", fake)
    return fake


@pytest.mark.usefixtures("rerun")
def test_a_result_is_image_masks_and_boxes_on_the_streams_clock(tmp_path):
    result = scene(3, (108, 192))
    with RerunFileSink(str(tmp_path / "out.rrd")) as sink:
        sink.write(result)
        sink.write(result)
        recording = sink._log.recording
    assert (tmp_path / "out.rrd").read_bytes() == b"rrd"
    assert recording.times[:2] == [("stream", {"duration": 0.0}), ("frame", {"sequence": 0})]
    paths = [path for path, _ in recording.logged]
    assert paths[:4] == [
        "streams/0", "streams/0/image", "streams/0/image/masks", "streams/0/image/boxes"
    ]  # fmt: skip
    assert paths.count("streams/0") == 1  # the prompts have not changed
    assert paths[-1] == "disconnect"
    named = dict(recording.logged)
    assert named["streams/0/image"][2]["contents"][:2] == b"\xff\xd8"
    labels = named["streams/0/image/masks"][1][0]
    assert set(np.unique(labels)) == {0, 1}
    assert len(named["streams/0/image/boxes"][2]["labels"]) == 3


@pytest.mark.usefixtures("rerun")
def test_a_file_that_exists_is_kept(tmp_path):
    (tmp_path / "out.rrd").write_text("old")
    with pytest.raises(ConfigError, match="exists"):
        RerunFileSink(str(tmp_path / "out.rrd")).claim(["0"])


@pytest.mark.usefixtures("rerun")
@pytest.mark.parametrize(
    ("spec", "target"),
    [("rerun:", "viewer"), ("rerun:host:9876", "rerun+http://host:9876/proxy")],
)
def test_a_viewer_is_opened_or_connected_to(spec, target):
    with RerunSink(spec) as sink:
        assert sink._log.recording.target == target


@pytest.mark.usefixtures("rerun")
def test_what_rerun_refuses_is_an_error_of_the_output(monkeypatch):
    def refuse(*_given, **_named):
        raise RuntimeError("no viewer")

    monkeypatch.setattr(FakeRecording, "spawn", refuse)
    with pytest.raises(SinkError, match="no viewer"), RerunSink("rerun:"):
        pass


def test_without_rerun_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with (
        pytest.raises(PluginError, match=r"ape-stream\[rerun\]"),
        RerunFileSink(str(tmp_path / "out.rrd")),
    ):
        pass


@pytest.mark.parametrize("spec", ["rerun:host", "rerun:host:x"])
def test_an_address_that_is_none_is_refused(spec):
    with pytest.raises(ConfigError):
        RerunSink(spec)
