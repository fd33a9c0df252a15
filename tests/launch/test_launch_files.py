"""Launch files: what can be said without ROS, and a real start where it is installed."""

import ast
import importlib.util
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).resolve().parents[2] / "launch").glob("*.launch.py"))
NAMES = {"ape.launch.py", "multi_camera.launch.py", "overlay.launch.py"}


def test_they_are_all_there():
    assert {path.name for path in FILES} == NAMES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_they_import_nothing_of_ours_and_describe_a_launch(path):
    tree = ast.parse(path.read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(module.startswith("ape_") for module in imported)
    assert "generate_launch_description" in {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.ros
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_they_make_descriptions(path):
    pytest.importorskip("rclpy")
    pytest.importorskip("launch_ros")
    spec = importlib.util.spec_from_file_location("under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.generate_launch_description().entities
