"""What a user installs is the wheel, not the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    tracked = run("git", "ls-files", cwd=ROOT).stdout.splitlines()
    source = folder / "source"
    for name in tracked:  # a copy, so that building leaves nothing in the checkout
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source))
    run(sys.executable, *build)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("installed")
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel))
    run(sys.executable, *pip)
    return target


def test_wheel_holds_all_package_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "ape_stream/py.typed",
        "ape_model/py.typed",
        "ape_model/assets/bpe_simple_vocab_16e6.txt.gz",
        "ape_model/assets/nano.safetensors",
    ):
        assert needed in names
    assert any(n.startswith("ape_cuda_ops/") and n.endswith((".cu", ".cuh")) for n in names)
    assert any(n.startswith("ape_cuda_ops/") and n.endswith(".cpp") for n in names)
    assert not any(n.startswith("tests/") for n in names)


@pytest.mark.slow
def test_installed_package_annotates_outside_the_checkout(installed, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    clip, out = ROOT / "examples/demo.mp4", tmp_path / "out"
    command = [sys.executable, "-m", "ape_stream", "annotate", str(clip), "--prompt", "dog face"]
    run(*command, "--output", str(out / "results.jsonl"), env=env, cwd=tmp_path)
    lines = (out / "results.jsonl").read_text().splitlines()
    assert len(lines) > 10
    assert all("instances" in json.loads(line) for line in lines)
