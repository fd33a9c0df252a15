"""The rules of the house that no linter knows."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from house import PACKAGES, ROOT, imported_libraries, nodes_of, text_of, tree_of

SOURCES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))
TOP_LEVEL = frozenset(
    [
        ".ci",
        ".gitignore",
        ".importlinter",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "ape_stream",
        "constraints.txt",
        "cuda_ops",
        "decisions",
        "docs",
        "examples",
        "launch",
        "mkdocs.yml",
        "model",
        "nodes",
        "package.xml",
        "pyproject.toml",
        "resource",
        "setup.cfg",
        "setup.py",
        "tests",
        "tools",
    ]
)
DOORS = {
    "aiohttp": ("nodes/ape_nodes/web/",),
    "av": (
        "ape_stream/sources/",
        "ape_stream/sinks/",
        "nodes/ape_nodes/ros2/video.py",
        "nodes/ape_nodes/web/encoding/images.py",
    ),
    "cuda": ("cuda_ops/",),
    "cupy": ("cuda_ops/",),
    "cyclonedds": ("nodes/ape_nodes/ros2/dds/",),
    "defusedxml": ("ape_stream/datasets/voc.py",),
    "ftfy": ("ape_stream/values/texts.py",),
    "huggingface_hub": ("model/ape_model/weights/", "model/ape_peers/places.py"),
    "lz4": ("ape_stream/wire/",),
    "msgpack": ("ape_stream/wire/",),
    "numba": ("cuda_ops/",),
    "paho": ("nodes/ape_nodes/web/zones/events.py",),
    "prometheus_client": ("nodes/ape_nodes/metrics/", "nodes/ape_nodes/web/hub.py"),
    "pycocotools": (
        "ape_stream/datasets/",
        "ape_stream/evaluation/",
        "ape_stream/masks/",
        "model/ape_model/training/",
        "model/ape_model/world/",
    ),
    "rclpy": ("nodes/ape_nodes/ros2/rclpy_node/", "launch/"),
    "regex": ("model/ape_model/text/",),
    "rerun": ("nodes/ape_nodes/rerun_sinks.py",),
    "rosbags": (
        "nodes/ape_nodes/ros2/bags/",
        "nodes/ape_nodes/ros2/types.py",
        "nodes/ape_nodes/ros2/dds/",
    ),
    "safetensors": (
        "ape_stream/index/vectors.py",
        "model/ape_model/io/",
        "model/ape_model/text/",
    ),
    "scipy": (
        "ape_stream/evaluation/benchmarks/",
        "ape_stream/trackers/",
        "model/ape_model/training/",
    ),
    "supervision": (
        "ape_stream/draw.py",
        "ape_stream/interop.py",
        "ape_stream/trackers/",
        "nodes/ape_nodes/web/zones/counting.py",
    ),
    "threadpoolctl": ("ape_stream/native/threads.py",),
    "trackers": ("ape_stream/evaluation/", "ape_stream/trackers/"),
    "transformers": ("model/ape_peers/places.py",),
    "ultralytics": ("model/ape_peers/yolo.py",),
    "yaml": ("ape_stream/datasets/yolo.py",),
    "zmq": ("nodes/ape_nodes/zeromq/", "nodes/ape_nodes/control.py"),
    "zstandard": ("ape_stream/wire/",),
}
"""Where each outside library may be imported: one door, so that another can take its place."""
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_MAP_LINES = 10
MAP_LINE = re.compile(r" *(?P<names>[\w./]+(?:, [\w./]+)*)  +(?P<what>\S.*)")
"""A line of a package's map: names, at least two spaces, and what they hold."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def declared_all(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def public_definitions(tree: ast.Module) -> set[str]:
    kinds = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
    return {n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_is_a_room_of_modest_size(path):
    assert text_of(path).count("\n") <= MAX_FILE_LINES
    for node in nodes_of(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, node.name


def map_of(docstring: str) -> list[tuple[list[str], list[str]]]:
    """The names that begin each line of a map, and those inside it: `...; name: what it holds`."""
    lines = []
    for line in docstring.splitlines():
        if found := MAP_LINE.fullmatch(line):
            heads = [name.rstrip("/").removesuffix(".py") for name in found["names"].split(", ")]
            inside = re.findall(r"; (\w+(?:, \w+)*): ", found["what"])
            lines.append((heads, [name for group in inside for name in group.split(", ")]))
    return lines


def modules_beneath(folder: Path) -> set[str]:
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    return files | {path.parent.name for path in folder.glob("*/__init__.py")}


@pytest.mark.parametrize(
    "init", [path for path in SOURCES if path.name == "__init__.py"], ids=relative
)
def test_a_package_has_a_map_of_its_modules(init):
    lines = map_of(ast.get_docstring(tree_of(init), clean=False) or "")
    heads = {name for names, _ in lines for name in names}
    named = heads | {name for _, names in lines for name in names}
    assert len(lines) <= MAX_MAP_LINES
    assert modules_beneath(init.parent) <= named
    gone = {name for name in heads if not (init.parent / name).is_dir()}
    assert gone <= modules_beneath(init.parent), "no such file"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_outside_libraries_come_in_by_their_one_door(path):
    for library in imported_libraries(path) & DOORS.keys():
        assert relative(path).startswith(DOORS[library]), f"{library} is imported here"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_all_names_what_is_public(path):
    tree = tree_of(path)
    declared = declared_all(tree)
    if declared is None:
        assert path.name in {"__init__.py", "__main__.py"}, "__all__ is missing"
        return
    if path.name != "__init__.py":
        assert public_definitions(tree) <= set(declared)


def test_every_package_folder_ships():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shipped = set(project["tool"]["setuptools"]["packages"])
    present = set()
    for package, folder in PACKAGES.items():
        for init in folder.rglob("__init__.py"):
            present.add(".".join((package, *init.parent.relative_to(folder).parts)))
    assert shipped == present


def test_launch_is_no_package():
    assert not (ROOT / "launch/__init__.py").exists(), "it would shadow ROS's own launch"


def test_core_imports_no_torch():
    code = (
        "import sys, ape_stream, ape_stream.config.build, ape_stream.cli.main;"
        "heavy = {'torch', 'zmq', 'rclpy', 'cuda', 'cupy', 'ape_model'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_entry_points_lead_somewhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for group in project["entry-points"].values():
        for target in group.values():
            module, _, attribute = target.partition(" ")[0].partition(":")
            assert importlib.util.find_spec(module), target
            if "rclpy_node" not in module:  # importable only with a ROS installation
                assert hasattr(importlib.import_module(module), attribute), target


def test_top_level_holds_what_is_known_and_no_output_of_a_run():
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    command = ["git", "ls-files", "-z"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {path.split("/")[0] for path in tracked.split("\0") if path} <= TOP_LEVEL
