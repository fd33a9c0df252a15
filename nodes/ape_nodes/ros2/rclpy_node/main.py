"""The executable `ape_node`: `ros2 run ape_stream ape_node`."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> None:
    """Run the node, or say in one line what is missing."""
    # Before rclpy is imported: mixed libraries crash without a message.
    if "ROS_DISTRO" in os.environ and find_spec("ros_wheels_bootstrapper") is not None:
        sys.stderr.write(
            "ape_node: ROS 2 is sourced, and pip's wheels of it are installed as well. Their"
            " libraries do not mix: use an environment without the extra `rclpy`\n"
        )
    try:
        from ape_nodes.ros2.rclpy_node.process import main as run  # noqa: PLC0415 (needs rclpy)
    except ModuleNotFoundError as error:
        sys.exit(
            f"ape_node needs {error.name}: source a ROS 2 installation with vision_msgs, or"
            " pip install 'ape-stream[rclpy]' and run"
            " python -m ape_nodes.ros2.rclpy_node.build_vision_msgs, or use"
            " `ape-stream annotate ros2:///TOPIC --output ros2:/ape`, which needs neither"
        )
    run()
