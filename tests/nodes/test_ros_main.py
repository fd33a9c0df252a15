import importlib.util

import pytest

from ape_nodes.ros_main import main


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is not None, reason="ROS 2 is installed")
def test_without_ros_it_says_what_to_do():
    with pytest.raises(SystemExit, match="source a ROS 2 installation"):
        main()
