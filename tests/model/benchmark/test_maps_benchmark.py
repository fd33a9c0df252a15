"""The benchmark of maps measures what it says."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ape_model.benchmark import maps as bench
from ape_model.commands.bench import app
from ape_stream.errors import UsageError

SMALL = ["maps", "--size", "160x96", "--canvas", "64", "--repeats", "1"]


def test_costs_and_both_forms_are_reported():
    done = CliRunner().invoke(app, [*SMALL, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    assert (report["model"], report["size"], report["canvas"]) == ("nano", "160x96", 64)
    assert report["prompts"] > 1
    assert report["masks"] > 0
    assert report["owners"] > 0
    assert report["owners_plain"] > 0
    assert report["differ"] == 0
    assert {"semantic", "panoptic"} <= report.keys()


def test_the_network_runs_once(monkeypatch):
    calls = []
    real = bench.ApePerceiver

    def counted(**options):
        perceiver = real(**options)
        encode = perceiver.network.encode_image
        perceiver.network.encode_image = lambda *given: calls.append(given) or encode(*given)
        return perceiver

    monkeypatch.setattr(bench, "ApePerceiver", counted)
    bench.run("nano", None, ["sky"], "160x96", 64, repeats=2, threads=1)
    assert len(calls) == 1


def test_an_image_needs_names():
    with pytest.raises(UsageError, match="needs names to paint: give --prompt"):
        bench.run("nano", Path("a.png"), None, "160x96", 64, repeats=1, threads=1)
