"""What a user installs is the wheel, not the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from clip import shorten_demo

ROOT = Path(__file__).resolve().parents[2]


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what is tracked, so that building leaves nothing in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in run("git", "ls-files", cwd=ROOT).stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
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
        "ape_nodes/web/static/index.html",
        "ape_nodes/web/static/js/main.js",
        "ape_model/assets/nano_text.safetensors",
        "ape_model/assets/street.safetensors",
    ):
        assert needed in names
    assert any(n.startswith("ape_cuda_ops/") and n.endswith((".cu", ".cuh")) for n in names)
    assert any(n.startswith("ape_cuda_ops/") and n.endswith(".cpp") for n in names)
    assert not any(n.startswith("tests/") for n in names)


@pytest.mark.slow
def test_installed_package_annotates_outside_the_checkout(installed, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    clip, out = tmp_path / "clip.mp4", tmp_path / "out"
    shorten_demo(clip, 12)
    command = [sys.executable, "-m", "ape_stream", "annotate", str(clip), "--prompt", "dog face"]
    run(*command, "--output", str(out / "results.jsonl"), env=env, cwd=tmp_path)
    lines = (out / "results.jsonl").read_text().splitlines()
    assert len(lines) == 12
    assert all("instances" in json.loads(line) for line in lines)


USER = """
import ape_stream
from ape_nodes.zeromq.control import ControlClient

for result in ape_stream.open("a.mp4", "cup"):
    result.frame.time_s.misspelt
"""


@pytest.mark.slow
def test_a_type_checker_finds_the_packages_of_an_editable_install(source, tmp_path):
    hook = f"from setuptools import build_meta; build_meta.build_editable({str(tmp_path)!r})"
    run(sys.executable, "-c", hook, cwd=source)
    run(sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv"))
    site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as editable:
        editable.extractall(site)
    found = run(
        tmp_path / "venv/bin/python",
        "-c",
        "from importlib.util import find_spec as find; print(*map(find, ('model', 'launch')));"
        "print(find('ape_stream').origin, find('ape_model').origin)",
        cwd=tmp_path,
    ).stdout.splitlines()
    assert found[0] == "None None"  # no other folder of the repository can be imported
    assert all(Path(origin).resolve().is_relative_to(source) for origin in found[1].split())
    (tmp_path / "user.py").write_text(USER)
    checker = ("-m", "mypy", "--strict", "--python-executable", str(tmp_path / "venv/bin/python"))
    done = subprocess.run(
        [sys.executable, *checker, "user.py"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[:-1] == [
        'user.py:6: error: "float" has no attribute "misspelt"  [attr-defined]'
    ]
