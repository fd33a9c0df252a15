"""The benchmark measures every backend; speed is a ratio in one run."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from ape_cuda_ops import bench
from ape_model.commands.bench import ops, resize

RESIZE = typer.Typer()
RESIZE.command()(resize)
APP = typer.Typer()
APP.command()(ops)


def test_json_has_every_backend_compared_with_the_baseline(monkeypatch):
    monkeypatch.setitem(bench.CASES, "small", bench.LayerCase(160, (8, 16, 32)))
    done = CliRunner().invoke(APP, ["--json", "--repeats", "5"])
    assert done.exit_code == 0, done.output
    lines = {line["backend"]: line for line in map(json.loads, done.output.splitlines())}
    assert lines["reference"]["speedup"] == 1
    assert lines["reference"]["error"] == 0
    assert all(line["error"] < 1e-5 for line in lines.values())
    assert set(lines) > {"reference", "embedding_bag"}
    assert all(line["speedup"] > 0 for line in lines.values())


def test_an_unknown_case_is_a_usage_error():
    done = CliRunner().invoke(APP, ["--case", "huge"])
    assert done.exit_code == 2
    assert "encoder640" in done.output


def test_interleaved_runs_every_call_in_every_round():
    seen = []
    times = bench.interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 3)
    assert seen == ["a", "b"] * 4
    assert [len(pairs) for pairs in times.values()] == [3, 3]


@pytest.mark.parametrize("name", bench.CASES)
def test_cases_have_a_query_per_token_or_the_given_number(name):
    (value, points, offsets, logits), shapes = bench.layer_inputs(name)
    assert value.shape[1] == sum(h * w for h, w in shapes)
    queries = bench.CASES[name].queries or value.shape[1]
    assert points.shape[1] == offsets.shape[1] == logits.shape[1] == queries


def test_values_of_16_bits_are_measured_too(monkeypatch):
    monkeypatch.setitem(bench.CASES, "small", bench.LayerCase(64, (8, 16), queries=30))
    done = CliRunner().invoke(APP, ["--json", "--repeats", "1", "--dtype", "bfloat16"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.output.splitlines()]
    assert {line["backend"] for line in lines} > {"reference", "embedding_bag"}
    assert all(line["error"] < 0.01 for line in lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_missing_device_is_a_usage_error():
    done = CliRunner().invoke(APP, ["--device", "cuda"])
    assert done.exit_code == 2
    assert "torch sees none" in done.output


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_gpu_is_measured(monkeypatch):
    monkeypatch.setitem(bench.CASES, "small", bench.LayerCase(64, (8, 16), queries=30))
    lines = bench.measure("small", 2, torch.device("cuda"), torch.bfloat16)
    assert all(line.error < 0.01 and line.wall_s > 0 for line in lines)


def test_a_resize_is_compared_with_pillow(monkeypatch):
    monkeypatch.setattr(bench, "RESIZES", (((60, 80), (30, 40)), ((20, 20), (40, 40))))
    done = CliRunner().invoke(RESIZE, ["--json", "--repeats", "2"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.output.splitlines()]
    assert [line["to"] for line in lines] == [[30, 40], [40, 40]]
    assert all(line["speedup"] > 0 for line in lines)
    shown = CliRunner().invoke(RESIZE, ["--repeats", "1"])
    assert "80x60 to 40x30: " in shown.output
