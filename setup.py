"""Hands setuptools and colcon what pyproject.toml cannot say (decisions/0001)."""

import os
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent  # through colcon's symlink, if any
LAUNCH_FILES = sorted(os.path.relpath(path, ROOT) for path in ROOT.glob("launch/*.launch.py"))

setup(
    python_requires=">=3.11",
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/ape_stream"]),
        ("share/ape_stream", ["package.xml"]),
        ("share/ape_stream/launch", LAUNCH_FILES),
    ],
)
