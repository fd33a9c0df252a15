"""The process of the node: its arguments, its executor, and a shutdown without stray threads."""

from __future__ import annotations

import argparse
import sys
import threading
from typing import TYPE_CHECKING

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from ape_nodes.ros2.rclpy_node.node import ApeNode
from ape_nodes.ros2.rclpy_node.shared_perceiver import SharedPerceiver
from ape_stream.signals import on_first_signal, polite_end

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "run"]


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our arguments, and those of ROS (all from the first `--ros-args` on)."""
    parser = argparse.ArgumentParser(prog="ape_node")
    parser.add_argument("--params", default="", help="YAML file of parameters")
    parser.add_argument("--autostart", action="store_true", help="configure and activate at once")
    parser.add_argument("--cameras", nargs="*", default=[], help="image topics; a node for each")
    own, rest = list(argv), []
    # rclpy takes several `--ros-args` blocks, so that of --params can follow the user's.
    if "--ros-args" in own:
        split = own.index("--ros-args")
        own, rest = own[:split], own[split:]
    parsed = parser.parse_args(own)
    if parsed.params:
        rest += ["--ros-args", "--params-file", parsed.params]
    return parsed, rest


def run(argv: Sequence[str]) -> int:
    """Run the node, or one node per camera with one model for all, until it is interrupted.

    SIGINT, SIGTERM and SIGHUP end it; further ones do not disturb the shutdown.

    Args:
        argv: The command line after the program's name.

    Returns:
        The exit code: 1 where a parameter has a wrong type or value, or where a node that should
        start at once could not.
    """
    parsed, ros_arguments = _arguments(argv)
    cameras = [camera for camera in parsed.cameras if camera]
    with polite_end():
        # rclpy's own handlers would shut the context down while the nodes still use it.
        rclpy.init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
        nodes: list[ApeNode] = []
        # Each node needs a thread for images and one for the rest; rclpy's default is one per CPU.
        executor = MultiThreadedExecutor(num_threads=2 + 2 * max(1, len(cameras)))
        try:
            if not _start(nodes, executor, cameras, autostart=parsed.autostart):
                return 1
            _spin(executor)
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            sys.stderr.write(f"ape_node: {error}\n")
            return 1
        finally:
            _shut_down(executor, nodes)
    return 0


def main() -> None:
    """Run with the arguments of this process."""
    sys.exit(run(sys.argv[1:]))


def _start(
    nodes: list[ApeNode],
    executor: MultiThreadedExecutor,
    cameras: Sequence[str],
    *,
    autostart: bool,
) -> bool:
    """Make the nodes and fill the list; False where one could not be started."""
    shared = SharedPerceiver()  # loaded by the first node that is configured
    for options in _node_options(cameras):
        node = ApeNode("ape", shared, **options)
        nodes.append(node)
        executor.add_node(node)
        if autostart and not _activate(node):
            return False
    return True


def _node_options(cameras: Sequence[str]) -> list[dict[str, object]]:
    """Keyword arguments of each node: with cameras a namespace and an image topic for each."""
    if not cameras:
        return [{}]
    return [
        {
            "namespace": topic.strip("/").replace("/", "_") or "camera",
            "cli_args": ["--ros-args", "-r", f"image:={topic}"],
        }
        for topic in cameras
    ]


def _activate(node: ApeNode) -> bool:
    steps = (node.trigger_configure, node.trigger_activate)
    return all(step() == TransitionCallbackReturn.SUCCESS for step in steps)


def _spin(executor: MultiThreadedExecutor) -> None:
    """Run callbacks until the first signal, or until the context is shut down."""
    ended = threading.Event()
    on_first_signal(ended.set)
    while rclpy.ok() and not ended.is_set():
        executor.spin_once()  # returns at the latest when a node's timer is due


def _shut_down(executor: MultiThreadedExecutor, nodes: Sequence[ApeNode]) -> None:
    """Stop pipelines first: a callback may wait for one, and the executor waits for callbacks."""
    # In this order: after `executor.shutdown` no callback runs, so nodes can be taken apart.
    for node in nodes:
        node.stop()
    executor.shutdown()
    for node in nodes:
        node.close()
        node.destroy_node()
    rclpy.try_shutdown()
