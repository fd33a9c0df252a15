"""Hands setuptools and colcon what pyproject.toml cannot say (decisions/0001)."""

import os
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent  # through colcon's symlink, if any
LAUNCH_FILES = sorted(os.path.relpath(path, ROOT) for path in ROOT.glob("launch/*.launch.py"))
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "package.xml", "resource", "launch")
FOLDERS = ("ape_stream", "model", "cuda_ops", "nodes")
PACKAGES = ("model/ape_model", "cuda_ops/ape_cuda_ops", "nodes/ape_nodes")

# `colcon build --symlink-install` runs in a folder that holds no more than a link to this file,
# and imports from there later: the packages must lie at its top.
if Path.cwd() != ROOT:
    for name in (*NEEDED, *FOLDERS, *PACKAGES):
        link = Path(Path(name).name)
        if not link.exists():
            link.symlink_to(ROOT / name)

setup(
    python_requires=">=3.11",
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/ape_stream"]),
        ("share/ape_stream", ["package.xml"]),
        ("share/ape_stream/launch", LAUNCH_FILES),
    ],
)
