"""`ape-stream bench node` measures what it says."""

import importlib.util
import json
from types import SimpleNamespace

import pytest
from processes import claim_domain

from ape_nodes.ros2 import commands
from ape_stream import plugins
from ape_stream.cli import main as cli
from ape_stream.errors import SourceError

SMALL = (108, 192)


@pytest.fixture(name="benchmark")
def _benchmark():
    pytest.importorskip("rclpy")
    return importlib.import_module("ape_nodes.ros2.rclpy_node.benchmark")


@pytest.fixture(name="domain")
def _domain(monkeypatch):
    number, claim = claim_domain()
    monkeypatch.setattr("random.randint", lambda *_: number)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with claim:
        yield


def test_it_is_a_command_of_bench():
    assert plugins.find("commands")["bench.node"].module == "ape_nodes.ros2.commands"


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is not None, reason="rclpy is here")
def test_without_rclpy_it_says_what_is_missing(capsys):
    assert cli.main(["bench", "node"]) != 0
    assert "needs rclpy" in capsys.readouterr().err


@pytest.mark.ros
@pytest.mark.usefixtures("benchmark", "domain")
def test_images_go_to_a_node_and_detections_come_back(capsys):
    commands.node(rate=5.0, seconds=2.0, prompt="red apple, fox", parameter=[], as_json=True)
    line = json.loads(capsys.readouterr().out)
    assert line["sent"] == 10
    # What is sent before the reader is matched counts neither as received nor as lost.
    assert 0 < line["received"] <= 10 - line["lost"]
    assert 0 < line["results"] <= 10
    assert 0 < line["age_ms_p50"] <= line["age_ms_p95"] <= line["age_ms_max"]
    assert line["age_ms_p50"] > line["perceive_ms_p50"] > 0


@pytest.mark.ros
@pytest.mark.usefixtures("domain")
def test_a_node_that_ends_is_reported(benchmark):
    with pytest.raises(SourceError, match="exit code 1"):
        benchmark.measure(5.0, 1.0, ["fox"], ["model:=absent"], SMALL)


@pytest.mark.ros
def test_ages_run_from_the_stamp(benchmark):
    seen = benchmark._Seen()
    stamp = SimpleNamespace(sec=5, nanosec=10**9 - 1)
    seen.detections(SimpleNamespace(header=SimpleNamespace(stamp=stamp)), 6 * 10**9 + 19_999_999)
    assert seen.ages_ms == [20.0]
    line = seen.line(3)
    assert (line.sent, line.results, line.age_ms_max) == (3, 1, 20.0)
    assert line.received is line.lost is line.perceive_ms_p50 is None
