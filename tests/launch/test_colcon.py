"""The root of the repository builds with colcon, plainly and by symlinks."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COLCON = shutil.which("colcon") or shutil.which(str(Path(sys.executable).with_name("colcon")))
PARTS = ("ape_stream", "model", "cuda_ops", "nodes", "launch",
         "resource", "pyproject.toml", "setup.py", "setup.cfg", "package.xml", "README.md",
         "LICENSE")  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(COLCON is None, reason="colcon is not installed")
@pytest.mark.parametrize("flags", [[], ["--symlink-install"]])
def test_it_builds(tmp_path, flags):
    source = tmp_path / "src/ape_stream"
    source.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part, **({"ignore": ignore} if (ROOT / part).is_dir() else {}))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    built = subprocess.run(
        [COLCON, "--log-base", "log", "build", *flags],
        cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    install = tmp_path / "install/ape_stream"
    assert (install / "lib/ape_stream/ape_node").is_file()
    assert (install / "share/ape_stream/package.xml").is_file()
    assert (install / "share/ape_stream/launch/ape.launch.py").is_file()
    assert (install / "share/ament_index/resource_index/packages/ape_stream").is_file()
    assert_sourced_workspace_works(tmp_path)


def assert_sourced_workspace_works(workspace):
    """As a user has it: packages, plugins and the executable come from the workspace alone."""
    code = (
        "import importlib.metadata as m, ape_stream, ape_model, ape_cuda_ops\n"
        "import ape_nodes.ros2.parameters\n"
        "from ape_stream.plugins import load\n"
        "load('trackers', 'iou'), load('sinks', 'zmq')\n"
        "print(ape_nodes.__file__, m.distribution('ape-stream')._path, sep='\\n')"
    )
    script = f'. install/local_setup.sh && cd / && "{sys.executable}" -c "{code}" && ape_node'
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env["PATH"] = f"{workspace}/install/ape_stream/lib/ape_stream{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        ["sh", "-c", script], cwd=workspace, env=env, capture_output=True, text=True, check=False
    )
    paths = done.stdout.split()
    assert len(paths) == 2, done.stderr
    # --symlink-install leads to the source tree through links in the workspace's build folder
    assert all(path.startswith(str(workspace)) for path in paths), paths
    if importlib.util.find_spec("rclpy") is None:
        assert "ape_node needs rclpy: source a ROS 2 installation" in done.stderr
