"""Hands setuptools and colcon what pyproject.toml cannot say (decisions/0001)."""

import os
from pathlib import Path

from setuptools import setup
from setuptools.command import editable_wheel

ROOT = Path(__file__).resolve().parent  # through colcon's symlink, if any
LAUNCH_FILES = sorted(os.path.relpath(path, ROOT) for path in ROOT.glob("launch/*.*"))
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "package.xml", "resource", "launch")
FOLDERS = ("ape_stream", "model", "cuda_ops", "nodes")
PACKAGES = ("model/ape_model", "cuda_ops/ape_cuda_ops", "nodes/ape_nodes", "model/ape_peers")

# `colcon build --symlink-install` runs in a folder that holds no more than a link to this file,
# and imports from there later: the packages must lie at its top.
if Path.cwd() != ROOT:
    for name in (*NEEDED, *FOLDERS, *PACKAGES):
        link = Path(Path(name).name)
        if not link.exists():
            link.symlink_to(ROOT / name)


class PathEditable(editable_wheel.editable_wheel):
    """Makes an editable install a plain path entry, which type checkers and editors can read.

    Where folders and packages differ in name, setuptools installs an import hook instead, and
    mypy, pyright and Pylance do not run it. The entry is a folder of links to the five packages,
    so that no other folder of the repository can be imported.
    """

    def _select_strategy(self, name, tag, build_lib):  # noqa: ANN001, ANN202 (setuptools' own)
        links = ROOT / "build/editable"
        try:
            links.mkdir(parents=True, exist_ok=True)
            for package in ("ape_stream", *PACKAGES):
                link = links / Path(package).name
                link.unlink(missing_ok=True)
                link.symlink_to(ROOT / package, target_is_directory=True)
            return editable_wheel._StaticPth(self.distribution, name, [links])  # noqa: SLF001
        except (AttributeError, OSError):  # another setuptools, or no right to make links
            return super()._select_strategy(name, tag, build_lib)


setup(
    cmdclass={"editable_wheel": PathEditable},
    python_requires=">=3.11",
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/ape_stream"]),
        ("share/ape_stream", ["package.xml"]),
        ("share/ape_stream/launch", LAUNCH_FILES),
    ],
)
