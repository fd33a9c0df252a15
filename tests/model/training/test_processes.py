"""Several processes train one network: as one process that sees all their images would."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = [str(ROOT), *(str(ROOT / name) for name in ("model", "cuda_ops", "nodes"))]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(FOLDERS), "OMP_NUM_THREADS": "1"}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
RECIPE = """
steps = 4
warm_up = 0
workers = 0
report_every = 1
save_every_s = 0.0
[[phase]]
first = 0
canvases = [{height = 64, width = 64, batch = 1, most = 2}]
"""


def torchrun(*words):
    command = [*TORCHRUN, *words]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_do_bit_for_bit_what_one_does_with_both_batches(tmp_path):
    torchrun(str(Path(__file__).with_name("two_processes.py")), str(tmp_path))
    assert sorted(p.name for p in tmp_path.glob("agreed.*")) == ["agreed.0", "agreed.1"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_under_torchrun_reports_once_and_writes_one_model(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = ("-m", "ape_model.training.command", "--device", "cpu")
    output = torchrun(*command, "--config", f"{tmp_path}/recipe.toml", "--out", f"{tmp_path}/out")
    assert output.count("text tower:") == 1
    assert output.count("wrote ") == 1
    lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines if "images" in line] == [2, 4, 6, 8]
    assert (tmp_path / "out/vision.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_and_called_again_gives_the_same_model(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)

    def command(out):
        words = (
            "--config",
            f"{tmp_path}/recipe.toml",
            "--device",
            "cpu",
            "--out",
            f"{tmp_path}/{out}",
        )
        return (sys.executable, "-m", "ape_model.training.command", *words)

    subprocess.run(command("whole"), env=ENVIRONMENT, check=True, capture_output=True)
    state = tmp_path / "cut/state.pt"
    with subprocess.Popen(command("cut"), env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        while not state.exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
    again = subprocess.run(
        command("cut"), env=ENVIRONMENT, check=True, capture_output=True, text=True
    )
    assert "resuming at step" in again.stdout
    whole, cut = ((tmp_path / f / "vision.safetensors").read_bytes() for f in ("whole", "cut"))
    assert whole == cut
