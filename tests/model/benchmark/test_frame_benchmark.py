"""The benchmark of whole frames measures what it says."""

import json

import pytest
import torch
from typer.testing import CliRunner

from ape_model.benchmark import frame as bench
from ape_model.benchmark.profiler import REST, StageTimer, timed_stages
from ape_model.commands.bench import app
from ape_model.errors import VariantError
from ape_model.reference.patch import reference_mode


def run(*arguments):
    return CliRunner().invoke(app, ["model", "--repeats", "1", "--size", "64", *arguments])


def test_json_reports_every_form_stage_by_stage():
    done = run("--model", "nano", "--dtype", "float32", "--dtype", "bfloat16", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    assert (report["weights"], report["size"], report["prompts"]) == ("installed", 64, 1)
    plain, fast, half = report["forms"]
    assert [form["form"] for form in report["forms"]] == ["reference", "float32", "bfloat16"]
    assert plain["speedup"] == 1
    assert fast["errors"]["memory"] < 1e-5
    assert 1e-5 < half["errors"]["memory"] < 0.05
    for form in report["forms"]:
        assert {"backbone", "encoder attention", "decoder", "masks"} <= {
            stage["stage"] for stage in form["stages"]
        }
        assert sum(stage["cpu_s"] for stage in form["stages"]) == pytest.approx(form["cpu_s"])


def test_vocabularies_take_turns():
    done = run("--model", "nano", "--vocabulary", "--threads", "1")
    assert done.exit_code == 0, done.output
    assert "10000 names" in done.output


@pytest.mark.parametrize(
    "wrong", [("--model", "nonsense"), ("--dtype", "int8"), ("--size", "100"), ("--device", "tpu")]
)
def test_wrong_options_are_one_line(wrong):
    done = run(*wrong)
    assert done.exit_code == 2
    assert done.output.startswith("error: ")
    assert done.output.count("\n") == 1


def test_variants_that_are_not_here_get_random_weights(home, monkeypatch, tiny):  # noqa: ARG001
    monkeypatch.setitem(bench.PRESETS, "D", tiny.network.config)
    network, weights = bench.open_network("D", torch.device("cpu"))
    assert weights == "random"
    assert not network.training
    with pytest.raises(VariantError, match="multiple of 64"):
        bench.make_frame(network, 100, 1)


def test_a_stage_holds_its_own_time_alone():
    stages = StageTimer(torch.device("cpu"))
    inner = stages.around("inner", lambda: sum(range(200_000)))
    outer = stages.around("outer", inner)
    stages.around("whole", outer)()
    seconds = stages.seconds()
    assert set(seconds) == {"whole", "outer", "inner"}
    assert seconds["inner"].wall_s > 10 * seconds["outer"].wall_s


def test_watching_leaves_no_trace(tiny):
    network = tiny.network
    images, prompts = torch.randn(1, 3, 64, 64), network.vocabulary(torch.randn(2, 16))
    before = {id(m): dict(m.__dict__) for m in network.modules()}
    with torch.inference_mode():
        wanted = network(images, prompts).logits
        with reference_mode(network):
            with timed_stages(network) as stages:
                network(images, prompts)
            network(images, prompts)
        assert torch.equal(network(images, prompts).logits, wanted)
    assert REST in stages.seconds()
    for module in network.modules():
        assert {k for k in module.__dict__ if k not in before[id(module)]} == set()
