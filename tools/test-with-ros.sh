#!/bin/sh
# Runs the tests that need ROS 2 (marker `ros`) against a real rclpy, from pip's wheels.
# It lives in .venv/ros, on top of .venv: its wheels restart every Python of their environment.
set -eu

skip() { echo "tests against a real ROS 2 skipped: $1" && exit 0; }

base=.venv/bin/python ros=.venv/ros
[ -z "${ROS_DISTRO:-}" ] || skip "ROS 2 $ROS_DISTRO is sourced; run pytest -m ros with its Python"
[ "$(uname -sm)" = "Linux x86_64" ] || skip "there are wheels for Linux on x86_64 only"

if [ ! -e "$ros/.ready" ] || [ .venv/.setup -nt "$ros/.ready" ]; then
    "$base" -m venv --without-pip "$ros"  # it finds pip below
    site() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
    echo "import site; site.addsitedir('$(site "$base")')" >"$(site "$ros/bin/python")/below.pth"
    "$ros/bin/python" -m pip install --quiet --constraint constraints.txt 'ape-stream[rclpy]' ||
        skip "pip has no rclpy for this Python"
    "$ros/bin/python" -m ape_nodes.ros2.rclpy_node.build_vision_msgs || skip "vision_msgs was not built"
    touch "$ros/.ready"
fi
# Three at a time: they wait for one another more than they compute.
OMP_NUM_THREADS=1 "$ros/bin/python" -m pytest -n 3 -m ros tests/nodes tests/launch
