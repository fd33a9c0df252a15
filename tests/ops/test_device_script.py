"""tools/device-check.sh where there is no device, and on stand-ins for python and ape-stream."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools/device-check.sh"
STAND_IN = f"""#!/bin/sh
case "$*" in
  *torch.version.cuda*) echo 13 ;;
  *purelib*) dirname "$0" ;;
  *"-m pip"*cupy-cuda13x*) echo "no such package" >&2; exit 1 ;;
  *"-m pip"*) ;;
  *"-m venv"*)
    for folder; do :; done
    mkdir -p "$folder/bin"
    cp "$0" "$folder/bin/python" && cp "$0" "$folder/bin/ape-stream" ;;
  *device_report*) exec "{sys.executable}" "$@" ;;
  *"--model D"*) echo "out of memory" >&2; exit 1 ;;
  *device_replay.py\\ D*) exec sleep 20 ;;
  *--json*) echo '{{"speedup": 2.5, "stages": [{{"stage": "encoder", "wall_s": 0.25}}]}}' ;;
  *"-m pytest"*) echo "3 passed" ;;
esac
"""


def run(*arguments, **environment):
    return subprocess.run(
        [str(SCRIPT), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_dry_run_lists_the_parts():
    done = run("--dry-run")
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert {
        "cupy",
        "ops-cupy",
        "ops-driver",
        "tests",
        "ops-bfloat16",
        "model-D",
        "names-Ti",
        "replay-Ti",
        "sanitizer",
    } <= set(lines)
    assert "at most 100 s  python -m pytest" in lines["tests"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_machine_without_a_device_ends_with_one_line(tmp_path):
    done = run(tmp_path / "out", PYTHON=sys.executable)
    assert done.returncode == 2
    assert done.stderr == "device-check: no CUDA device found, nothing was run\n"
    assert not (tmp_path / "out").exists()


def test_a_failed_setup_ends_with_one_line(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\n[ \"$1\" = -c ] || { echo 'no module venv'; exit 1; }\n")
    fake.chmod(0o755)
    done = run(tmp_path / "out", PYTHON=str(fake))
    assert done.returncode == 2
    assert "setting up failed: see" in done.stderr
    assert "no module venv" in (tmp_path / "out/setup.log").read_text()


def test_a_part_that_ran_out_of_time_keeps_what_it_measured(tmp_path):
    (tmp_path / "parts.tsv").write_text("ops\t124\t30\n")
    (tmp_path / "ops.json").write_text('{"case": "small"}\n{"case": "large"}\n{"ca')
    report = [sys.executable, str(ROOT / "tools/device_report.py"), str(tmp_path)]
    subprocess.run(report, check=True)
    (part,) = json.loads((tmp_path / "summary.json").read_text())
    assert part["result"] == [{"case": "small"}, {"case": "large"}]


def test_every_part_runs_and_failures_are_recorded(tmp_path):
    fake = tmp_path / "python"
    fake.write_text(STAND_IN)
    fake.chmod(0o755)
    script = tmp_path / "tools/device-check.sh"
    script.parent.mkdir()
    script.write_text(SCRIPT.read_text().replace("replay-D|50|", "replay-D|1|"))
    script.chmod(0o755)
    for name in ("device_report.py", "device_replay.py"):
        (script.parent / name).write_text((ROOT / "tools" / name).read_text())
    given = {**os.environ, "PYTHON": str(fake)}
    done = subprocess.run(
        [str(script), "out"], env=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    parts = {part["name"]: part for part in json.loads((tmp_path / "out/summary.json").read_text())}
    bad = {name: part["state"] for name, part in parts.items() if part["state"] != "passed"}
    assert bad.pop("cupy") == "exit 1"  # there may be no CuPy for this CUDA version
    assert bad == {"model-D": "exit 1", "names-D": "exit 1", "replay-D": "ran out of time"}
    assert parts["ops-float32"]["result"]["speedup"] == 2.5
    assert parts["model-D"]["last_line"] == "out of memory"
    assert {parts[name]["last_line"] for name in ("tests", "ops-cupy", "ops-driver")} == {
        "3 passed"
    }
    text = (tmp_path / "out/summary.txt").read_text()
    assert "speedup 2.5" in text
    assert "stages: stage encoder, wall_s 0.25" in text


def test_a_frame_is_timed_with_and_without_graphs(monkeypatch):
    path = ROOT / "tools/device_replay.py"
    spec = importlib.util.spec_from_file_location("device_replay", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CudaGraphRunner", lambda network: network)
    monkeypatch.setattr(module, "PinnedUploader", lambda _: torch.from_numpy)
    monkeypatch.setattr(module, "ROUNDS", 1)
    found = module.replay("nano", 64, torch.float32, torch.device("cpu"))
    assert set(found["milliseconds"]) == {"eager", "graphs"}
    assert found["error"] == 0
    assert module.upload(torch.device("cpu"))["equal"]
