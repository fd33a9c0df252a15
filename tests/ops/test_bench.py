"""The benchmark measures what it says; its bars are ratios in one run."""

import json

import pytest
import typer
from typer.testing import CliRunner

from ape_cuda_ops import bench, doctor

APP = typer.Typer()
APP.command()(bench.ops)


def test_json_holds_every_backend_and_the_bar_of_cpp(monkeypatch):
    monkeypatch.setitem(bench.CASES, "small", (160, (8, 16, 32), 8, 32))
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
def test_cases_hold_a_query_per_token(name):
    (value, places, offsets, logits), shapes = bench.encoder_case(name)
    assert value.shape[1] == places.shape[1] == offsets.shape[1] == logits.shape[1]
    assert value.shape[1] == sum(h * w for h, w in shapes)
