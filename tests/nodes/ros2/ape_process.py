"""`ape_node` in a process of its own, with the plugins of the tests and the same arguments."""

import signal
import sys

import pytest
from ros_bench import name_plugins

from ape_nodes.ros2.rclpy_node.process import run

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs of a shell script
    name_plugins(pytest.MonkeyPatch())
    sys.exit(run(sys.argv[1:]))
