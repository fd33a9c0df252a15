"""Launch files: always with a strict fake, and with a real launch where ROS 2 is installed."""

import ast
import importlib
import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import fake_launch
import pytest
import yaml

from ape_nodes.ros2.topics import INPUTS, OUTPUTS

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.name: path for path in (ROOT / "launch").glob("*.launch.py")}


def test_all_files_exist_and_the_folder_is_not_a_package():
    assert set(FILES) == {"ape.launch.py", "multi_camera.launch.py", "overlay.launch.py"}
    assert not (ROOT / "launch/__init__.py").exists(), "it would shadow ROS's own"


@pytest.mark.parametrize("name", FILES)
def test_they_import_nothing_of_ours(name):
    tree = ast.parse(FILES[name].read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(module.startswith("ape_") for module in imported)


def test_views_show_topics_that_there_are():
    """Of RViz and Foxglove."""
    topics = {f"/ape/{spec.name}" for spec in OUTPUTS}
    rviz = yaml.safe_load((ROOT / "launch/ape.rviz").read_text())
    shown = [one["Topic"]["Value"] for one in rviz["Visualization Manager"]["Displays"]
             if "Topic" in one]  # fmt: skip
    assert set(shown) == {"/ape/overlay", "/ape/points", "/ape/markers"} <= topics
    layout = json.loads((ROOT / "launch/ape.foxglove.json").read_text())
    panels = layout["configById"]
    assert set(panels["3D!ape"]["topics"]) <= topics
    assert set(panels["Image!ape"]["imageMode"]["annotations"]) <= topics
    placed = json.dumps(layout["layout"])
    assert all(name in placed for name in panels)


def test_the_package_names_what_it_needs():
    manifest = ET.parse(ROOT / "package.xml").getroot()
    needed = {one.text for one in manifest.iter("exec_depend")}
    messages = {spec.type.split("/")[0] for spec in (*OUTPUTS, *INPUTS)}
    assert messages | {"python3-numpy", "python3-opencv", "rqt_image_view"} <= needed


@pytest.fixture
def launch(monkeypatch):
    fake_launch.install(monkeypatch)

    def launched(file, around=lambda entities: entities, **given):
        return fake_launch.Service(FILES[file], given, around)

    return launched


def in_group(entities):
    return [fake_launch.GroupAction(entities)]


def in_namespace(entities):
    return in_group([fake_launch.PushRosNamespace("robot"), *entities])


def test_the_node_becomes_active(launch):
    done = launch("ape.launch.py", image_topic="/camera/image_raw", params_file="p.yaml")
    assert done.commands == [
        ["ape_stream/ape_node", "--params", "p.yaml", "--ros-args", "--log-level", "info",
         "--ros-args", "-r", "__node:=ape", "-r", "__ns:=/", "-r", "image:=/camera/image_raw"],
    ]  # fmt: skip
    assert done.changes == ["configure"]
    done.transition("configuring", "unconfigured")
    assert done.changes == ["configure"], "a refused configuration is not activated"
    done.transition("configuring", "inactive")
    assert done.changes == ["configure", "activate"]
    done.transition("deactivating", "inactive")
    assert done.changes == ["configure", "activate"], "a deactivated node stays inactive"


@pytest.mark.parametrize(
    ("around", "namespace"), [(in_group, "__ns:=/"), (in_namespace, "__ns:=/robot")]
)
def test_in_a_group_and_a_namespace_it_becomes_active(launch, around, namespace):
    """A group forgets its arguments before the node has changed its state."""
    done = launch("ape.launch.py", around, image_topic="image_raw")
    assert done.values == {"image_topic": "image_raw"}
    assert namespace in done.commands[0]
    done.transition("configuring", "inactive")
    assert done.changes == ["configure", "activate"]


def test_arguments_become_parameters_and_remappings(launch):
    done = launch(
        "ape.launch.py", prompts="cat, dog:0.6", model="D", image_transport="compressed",
        depth_topic="/depth", target_frame="base_link", use_sim_time="true",
    )  # fmt: skip
    (command,) = done.commands
    assert {
        "prompts:=['cat', 'dog:0.6']", "model:=D", "image_transport:=compressed", "depth:=image",
        "depth:=/depth", "target_frame:=base_link", "use_sim_time:=True",
    } <= set(command)  # fmt: skip
    assert "--params" not in command
    assert "depth:=points" in launch("ape.launch.py", points_topic="/lidar").commands[0]
    compressed = launch("ape.launch.py", depth_topic="/d/compressedDepth").commands[0]
    assert {"depth:=compressed", "depth/compressedDepth:=/d/compressedDepth"} <= set(compressed)


def test_without_autostart_it_waits(launch):
    done = launch("ape.launch.py", autostart="false", namespace="robot", name="finder")
    done.transition("configuring", "inactive")
    assert done.changes == []
    assert {"__ns:=/robot", "__node:=finder"} <= set(done.commands[0])
    assert not any(word.startswith("image:=") for word in done.commands[0])


def test_a_node_that_is_started_again_starts_itself(launch):
    """launch sends the event that configures it once only."""
    done = launch("ape.launch.py", respawn="true")
    assert done.nodes[0].respawn_s == 2
    assert "--autostart" in done.commands[0]
    assert done.changes == []
    waiting = launch("ape.launch.py", respawn="true", autostart="false")
    assert "--autostart" not in waiting.commands[0]
    cameras = launch("multi_camera.launch.py", respawn="true", cameras="/a")
    assert cameras.nodes[0].respawn_s == 2
    assert launch("ape.launch.py").nodes[0].respawn_s is None


@pytest.mark.parametrize(
    ("around", "given", "topic"),
    [
        (in_group, {}, "/ape/overlay"),
        (in_group, {"namespace": "/robot"}, "/robot/ape/overlay"),
        (in_namespace, {}, "/robot/ape/overlay"),
        (in_namespace, {"namespace": "head"}, "/robot/head/ape/overlay"),
        (in_namespace, {"namespace": "/other"}, "/other/ape/overlay"),
    ],
)
def test_the_overlay_is_shown(launch, around, given, topic):
    done = launch("overlay.launch.py", around, image_topic="/camera", **given)
    assert f"__ns:={topic.removesuffix('/ape/overlay') or '/'}" in done.commands[0]
    node, window = done.commands
    assert "image:=/camera" in node
    assert window[:2] == ["rqt_image_view/rqt_image_view", topic]
    assert done.changes == ["configure"]


def test_cameras_share_a_process(launch):
    done = launch("multi_camera.launch.py", cameras="/a/image_raw, /b/image_raw,")
    (command,) = done.commands
    assert command[:4] == ["ape_stream/ape_node", "--autostart", "--cameras", "/a/image_raw"]
    assert command[4:6] == ["/b/image_raw", "--ros-args"]
    around = launch("multi_camera.launch.py", in_namespace, cameras="/a", prompts="cat")
    assert {"__ns:=/robot", "prompts:=['cat']"} <= set(around.commands[0])
    with pytest.raises(AssertionError, match="cameras must be given"):
        launch("multi_camera.launch.py")


@pytest.mark.ros
@pytest.mark.parametrize("name", FILES)
def test_real_launch_takes_the_descriptions(name):
    pytest.importorskip("rclpy")
    pytest.importorskip("launch_ros")
    assert fake_launch.describe(FILES[name]).entities


@pytest.mark.ros
@pytest.mark.slow
def test_with_a_real_launch_the_node_becomes_active():
    pytest.importorskip("rclpy")
    pytest.importorskip("launch_testing")
    find = importlib.import_module("ament_index_python.packages")
    if "ape_stream" not in find.get_packages_with_prefixes():
        pytest.skip("ape_stream is not in the sourced workspace: colcon build it first")
    command = shutil.which("launch_test")
    assert command, "launch_testing is there, its launch_test is not"
    subprocess.run([command, str(Path(__file__).with_name("active_node.py"))], check=True)
