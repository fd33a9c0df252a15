"""The benchmark measures what it says."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ape_nodes import benchmarks
from ape_nodes.zeromq import benchmark
from ape_stream import plugins
from ape_stream.cli import main as cli
from ape_stream.masks import paste

SMALL = (108, 192)


def test_every_form_is_timed_and_its_size_counted():
    lines = {line.form: line for line in benchmark.measure(3, SMALL)}
    assert len(lines) == 8
    raw = lines["raw frame, no results"].message_bytes
    assert 0 < raw - SMALL[0] * SMALL[1] * 3 < 100
    dense = lines["pickled dense masks, 100 regions"].message_bytes
    assert dense > 100 * SMALL[0] * SMALL[1]
    ours = [lines[f"wire v1, {n} region{'s' * (n > 1)}"].message_bytes for n in (1, 20, 100)]
    assert ours == sorted(ours)
    assert dense > 50 * ours[2]
    assert lines["wire v1, 20 regions, frame as jpeg"].message_bytes > ours[1]
    assert all(0 < line.ms_p50 <= line.ms_p95 <= line.ms_p99 for line in lines.values())


@pytest.mark.parametrize("count", [1, 20])
def test_the_scene_is_1080p_with_masks_of_realistic_size(count):
    result = benchmarks.scene(count)
    areas = [paste(mask, benchmarks.SIZE).sum() for mask in result.instances.masks]
    assert result.frame.image.shape == (1080, 1920, 3)
    assert len(areas) == count
    assert 45_000 < np.mean(areas) < 60_000


def test_it_is_a_command_of_bench(monkeypatch, capsys):
    assert plugins.find("commands")["bench.wire"].module == "ape_nodes.zeromq.commands"
    measure = benchmark.measure
    monkeypatch.setattr(benchmark, "measure", lambda rounds: measure(rounds, SMALL))
    assert cli.main(["bench", "wire", "--rounds", "1", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["form"] == "wire v1, 1 region"


def test_the_help_of_bench_names_what_others_add():
    shown = CliRunner().invoke(cli.app, ["bench", "--help"])
    assert shown.exit_code == 0
    assert "wire" in shown.output
    top = CliRunner().invoke(cli.app, ["--help"])
    assert "bench.wire" not in top.output
