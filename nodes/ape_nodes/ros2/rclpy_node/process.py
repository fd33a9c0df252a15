"""The process of the node: its arguments, its executor, and an end without loose threads."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn

from ape_nodes.ros2.rclpy_node.node import ApeNode
from ape_nodes.ros2.rclpy_node.shared_perceiver import SharedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "run"]


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Ours, and those of ROS (all from the first `--ros-args` on)."""
    parser = argparse.ArgumentParser(prog="ape_node")
    parser.add_argument("--params", default="", help="YAML file of parameters")
    parser.add_argument("--autostart", action="store_true", help="configure and activate at once")
    parser.add_argument("--cameras", nargs="*", default=[], help="image topics; a node for each")
    own, rest = list(argv), []
    if "--ros-args" in own:
        place = own.index("--ros-args")
        own, rest = own[:place], own[place:]
    parsed = parser.parse_args(own)
    if parsed.params:
        rest += ["--ros-args", "--params-file", parsed.params]
    return parsed, rest


def run(argv: Sequence[str]) -> int:
    """Run the node, or one node per camera with one model for all, until it is interrupted.

    Args:
        argv: The command line after the program's name.

    Returns:
        The exit code: 1 where a parameter has a wrong type or value, or where a node that should
        start at once could not.
    """
    parsed, ros_arguments = _arguments(argv)
    rclpy.init(args=ros_arguments)  # Humble's is no context manager
    model, nodes = SharedModel(), []
    cameras = [camera for camera in parsed.cameras if camera]
    # Each node needs a thread for images and one for all else; a default of one CPU is too few.
    executor = MultiThreadedExecutor(num_threads=2 + 2 * max(1, len(cameras)))
    try:
        for options in _options(cameras):
            node = ApeNode("ape", model, **options)
            nodes.append(node)
            executor.add_node(node)
            if parsed.autostart and not _started(node):
                return 1
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        sys.stderr.write(f"ape_node: {error}\n")
        return 1
    finally:
        _end(executor, nodes)
    return 0


def main() -> None:
    """Run with the arguments of this process."""
    sys.exit(run(sys.argv[1:]))


def _options(cameras: Sequence[str]) -> list[dict[str, object]]:
    """What each node is made with: its own namespace, its own image topic."""
    if not cameras:
        return [{}]
    made: list[dict[str, object]] = []
    for topic in cameras:
        place = topic.strip("/").replace("/", "_") or "camera"
        remap = ["--ros-args", "-r", f"image:={topic}"]
        made.append({"namespace": place, "cli_args": remap})
    return made


def _started(node: ApeNode) -> bool:
    steps = (node.trigger_configure, node.trigger_activate)
    return all(step() == TransitionCallbackReturn.SUCCESS for step in steps)


def _end(executor: MultiThreadedExecutor, nodes: Sequence[ApeNode]) -> None:
    """Stop pipelines first: a callback may wait for one, and the executor waits for callbacks."""
    for node in nodes:
        node.stop()
    executor.shutdown()
    for node in nodes:
        node.close()
        node.destroy_node()
    rclpy.try_shutdown()
