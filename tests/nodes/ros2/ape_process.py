"""`ape_node` in a process of its own, with the tests' perceivers; the arguments are its own."""

import sys

import pytest
from ros_bench import name_perceivers

from ape_nodes.ros2.rclpy_node.process import run

if __name__ == "__main__":
    name_perceivers(pytest.MonkeyPatch())
    sys.exit(run(sys.argv[1:]))
