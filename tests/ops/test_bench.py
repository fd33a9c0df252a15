"""The benchmark measures what it says; its bars are ratios in one run."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from ape_cuda_ops import bench, doctor

APP = typer.Typer()
APP.command()(bench.ops)


def test_json_holds_every_backend_and_the_bar_of_cpp(monkeypatch):
    monkeypatch.setitem(bench.CASES, "small", bench.Case(160, (8, 16, 32)))
    done = CliRunner().invoke(APP, ["--json", "--repeats", "5"])
    assert done.exit_code == 0, done.output
    lines = {line["backend"]: line for line in json.loads(done.output)}
    assert lines["reference"]["speedup"] == 1
    assert lines["reference"]["error"] == 0
    assert all(line["error"] < 1e-5 for line in lines.values())
    if "cpp" in lines:
        assert lines["cpp"]["speedup"] > 6  # 12 and more on an idle machine


def test_an_unknown_case_is_a_usage_error():
    done = CliRunner().invoke(APP, ["--case", "huge"])
    assert done.exit_code == 2
    assert "encoder640" in done.output


def test_interleaved_runs_every_call_in_every_round():
    seen = []
    times = bench.interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 3)
    assert seen == ["a", "b"] * 4
    assert [len(pairs) for pairs in times.values()] == [3, 3]


def test_the_doctor_names_backends_compilers_and_cache(monkeypatch):
    found = dict(doctor.findings())
    assert found["kernels on cpu"].split(";")[0] in {"cpp", "numba", "embedding_bag"}
    assert {"kernels on cuda", "c++ compiler", "nvrtc", "kernel cache"} <= set(found)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert dict(doctor.findings())["c++ compiler"].startswith("none: no C++ compiler")


@pytest.mark.parametrize("name", bench.CASES)
def test_cases_hold_a_query_per_token_or_as_many_as_they_say(name):
    (value, places, offsets, logits), shapes = bench.layer_case(name)
    assert value.shape[1] == sum(h * w for h, w in shapes)
    queries = bench.CASES[name].queries or value.shape[1]
    assert places.shape[1] == offsets.shape[1] == logits.shape[1] == queries


def test_values_of_16_bits_are_measured_too(monkeypatch):
    monkeypatch.setitem(bench.CASES, "small", bench.Case(64, (8, 16), queries=30))
    done = CliRunner().invoke(APP, ["--json", "--repeats", "1", "--dtype", "bfloat16"])
    assert done.exit_code == 0, done.output
    lines = json.loads(done.output)
    assert {line["backend"] for line in lines} > {"reference", "embedding_bag"}
    assert all(line["error"] < 0.01 for line in lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_device_that_is_not_here_is_a_usage_error():
    done = CliRunner().invoke(APP, ["--device", "cuda"])
    assert done.exit_code == 2
    assert "torch sees none" in done.output


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_gpu_is_measured_by_what_it_took(monkeypatch):
    monkeypatch.setitem(bench.CASES, "small", bench.Case(64, (8, 16), queries=30))
    lines = bench.measure("small", 2, torch.device("cuda"), torch.bfloat16)
    assert all(line.error < 0.01 and line.wall_s > 0 for line in lines)
