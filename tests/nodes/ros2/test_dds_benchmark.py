"""The benchmark measures what it says."""

import json

import numpy as np
import pytest

pytest.importorskip("cyclonedds")

from ape_nodes.ros2.dds import benchmark
from ape_nodes.ros2.messages import RosFrame
from ape_stream import plugins
from ape_stream.cli import main as cli
from ape_stream.errors import SourceError

SMALL = (108, 192)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """It sets this variable, for both processes."""
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")


def test_every_form_goes_from_one_process_to_the_other():
    lines = list(benchmark.measure(20.0, 0.5, SMALL))
    assert [line.form for line in lines] == [
        "bgr8, best effort",
        "bgr8, reliable",
        "jpeg, best effort",
    ]
    assert {line.message_bytes for line in lines[:2]} == {SMALL[0] * SMALL[1] * 3}
    assert lines[2].message_bytes < lines[0].message_bytes / 5
    for line in lines:
        assert (line.sent, line.changed) == (10, 0)
        assert line.received == 10 - line.lost > 5
        assert 0 < line.ms_p50 <= line.ms_p95 <= line.ms_p99
        assert line.writer_cpu_ms > 0
        assert line.reader_cpu_ms > 0
        assert line.sent_hz < 25


def received_of(*numbers, changed=()):
    """What the reader counts when these numbers arrive."""
    images = [np.full((2, 3, 3), k, np.uint8) for k in range(benchmark._IMAGES)]
    frames = [
        RosFrame(images[k % len(images)] + (k in changed), k, 0.0, frame_id=str(k)) for k in numbers
    ]
    ready, end = (RosFrame(images[0], 0, 0.0, frame_id=frame_id) for frame_id in ("ready", "end"))
    return benchmark._count(iter([ready, *frames, end, frames[0]]), images)


def test_lost_and_changed_images_are_counted():
    plan = benchmark._Plan(benchmark._FORMS[0], 1, 30.0, 8, SMALL)
    received = received_of(0, 1, 2, 5, 6, 7, changed=(2, 5))
    line = benchmark._line(plan, received, 100, 1.0, 0.08)
    assert (line.sent, line.received, line.lost, line.changed) == (8, 6, 2, 2)
    assert line.writer_cpu_ms == pytest.approx(10)
    assert line.sent_hz == pytest.approx(7)


def test_nothing_received_has_no_latency():
    plan = benchmark._Plan(benchmark._FORMS[0], 1, 30.0, 8, SMALL)
    line = benchmark._line(plan, benchmark._Received(), 100, 1.0, 0.08)
    assert (line.received, line.lost) == (0, 8)
    assert line.ms_p50 is line.reader_cpu_ms is None
    assert benchmark._COLUMNS["reader CPU ms"](line) == "-"


def test_a_reader_that_dies_is_reported(monkeypatch):
    monkeypatch.setattr(benchmark, "_read", len)  # it fails at once: too many arguments
    with pytest.raises(SourceError, match="ended early"):
        list(benchmark.measure(20.0, 1.0, SMALL))


def test_it_is_a_command_of_bench(monkeypatch, capsys):
    assert plugins.find("commands")["bench.dds"].module == "ape_nodes.ros2.commands"
    plan = benchmark._Plan(benchmark._FORMS[0], 1, 15.0, 1, SMALL)
    line = benchmark._line(plan, received_of(0), 100, 1.0, 0.08)
    asked = []
    monkeypatch.setattr(benchmark, "measure", lambda *given: asked.append(given) or [line])
    assert cli.main(["bench", "dds", "--rate", "15", "--seconds", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["received"] == 1
    assert cli.main(["bench", "dds"]) == 0
    assert "bgr8, best effort" in capsys.readouterr().out
    assert asked == [(15.0, 2.0), (30.0, 10.0)]
