"""The executable `ape_node`: `ros2 run ape_stream ape_node`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the node, or say in one line what is missing."""
    try:
        from ape_nodes.ros_process import main as run  # noqa: PLC0415 (rclpy comes with ROS alone)
    except ModuleNotFoundError as error:
        sys.exit(
            f"ape_node needs {error.name}: source a ROS 2 installation with vision_msgs, or use"
            " `ape-stream run ros2:///TOPIC --output ros2:/ape`, which needs none"
        )
    run()
