import importlib.util
import sys

import pytest

from ape_nodes.ros2.rclpy_node import build_vision_msgs, main


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is not None, reason="ROS 2 is installed")
def test_without_ros_it_says_what_to_do():
    with pytest.raises(SystemExit, match="source a ROS 2 installation"):
        main.main()


@pytest.mark.parametrize("sourced", [True, False])
def test_a_sourced_ros_together_with_wheels_is_warned_of(monkeypatch, capsys, sourced):
    monkeypatch.setattr(main, "find_spec", lambda name: name == "ros_wheels_bootstrapper")
    monkeypatch.setitem(sys.modules, "ape_nodes.ros2.rclpy_node.process", None)
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    if sourced:
        monkeypatch.setenv("ROS_DISTRO", "jazzy")
    with pytest.raises(SystemExit):
        main.main()
    assert ("do not mix" in capsys.readouterr().err) is sourced


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is not None, reason="ROS 2 is installed")
def test_vision_msgs_cannot_be_built_without_the_wheels(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(SystemExit, match=r"rosidl_adapter is missing: pip install"):
        build_vision_msgs.main()


@pytest.mark.ros
def test_vision_msgs_that_are_installed_are_not_built_again(capsys):
    pytest.importorskip("vision_msgs")
    build_vision_msgs.main()
    assert "is installed" in capsys.readouterr().out
