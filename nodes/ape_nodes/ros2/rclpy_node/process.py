"""The process of the node: its arguments, its executor, and a shutdown without stray threads."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import rclpy
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterUninitializedException,
)
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from ape_nodes.ros2.rclpy_node.backend import spin_once
from ape_nodes.ros2.rclpy_node.node import ApeNode
from ape_nodes.ros2.rclpy_node.shared_memory import enlarge_shared_memory
from ape_stream.errors import ConfigError
from ape_stream.pipeline.shared_perceiver import SharedPerceiver
from ape_stream.signals import on_first_signal, polite_end

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "run"]

_WRONG_PARAMETERS = (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterUninitializedException,
)


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our arguments, and those of ROS (all from the first `--ros-args` on)."""
    parser = argparse.ArgumentParser(prog="ape_node")
    parser.add_argument("--params", default="", help="YAML file of parameters")
    parser.add_argument("--autostart", action="store_true", help="configure and activate at once")
    parser.add_argument("--cameras", nargs="*", default=[], help="image topics; a node for each")
    own, rest = list(argv), []
    # rclpy takes several `--ros-args` blocks, so that of --params can be one of its own.
    if "--ros-args" in own:
        split = own.index("--ros-args")
        own, rest = own[:split], own[split:]
    parsed = parser.parse_args(own)
    if parsed.params:
        # First: what is given on the command line, or by a launch file, goes before the file.
        rest = ["--ros-args", "--params-file", parsed.params, *rest]
    return parsed, rest


def run(argv: Sequence[str], *, last: bool = False) -> int:
    """Run the node, or one node per camera with one model for all, until it is interrupted.

    SIGINT, SIGTERM and SIGHUP end it; further ones do not disturb the shutdown.

    Args:
        argv: The command line after the program's name.
        last: The process ends afterwards, and a late signal does not disturb that: `ros2 launch`
            sends SIGTERM where SIGINT takes more than 5 s.

    Returns:
        The exit code: 1 where a parameter has a wrong type or value, or where a node that should
        start at once could not.
    """
    parsed, ros_arguments = _arguments(argv)
    if parsed.params and not Path(parsed.params).is_file():
        sys.stderr.write(f"ape_node: there is no file {parsed.params}\n")
        return 1
    cameras = [camera for camera in parsed.cameras if camera]
    enlarge_shared_memory()
    with polite_end(last=last):
        # rclpy's own handlers would shut the context down while the nodes still use it.
        rclpy.init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
        nodes: list[ApeNode] = []
        # Each node needs a thread for `~/detect` and one for the rest; rclpy's default is one per
        # CPU.
        executor = MultiThreadedExecutor(num_threads=2 + 2 * max(1, len(cameras)))
        try:
            base = _global_namespace(ros_arguments)
            if not _start(nodes, executor, cameras, base=base, autostart=parsed.autostart):
                return 1
            _spin(executor)
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        except (*_WRONG_PARAMETERS, ConfigError) as error:
            sys.stderr.write(f"ape_node: {error}\n")
            return 1
        finally:
            _shut_down(executor, nodes)
    return 0


def main() -> None:
    """Run with the arguments of this process."""
    sys.exit(run(sys.argv[1:], last=True))


def _start(
    nodes: list[ApeNode],
    executor: MultiThreadedExecutor,
    cameras: Sequence[str],
    *,
    base: str,
    autostart: bool,
) -> bool:
    """Make the nodes and fill the list; False where one could not be started."""
    shared = SharedPerceiver()  # loaded by the first node that is configured
    for options in _node_options(cameras, base):
        node = ApeNode("ape", shared, **options)
        nodes.append(node)
        executor.add_node(node)
        if autostart and not _activate(node):
            return False
    return True


def _node_options(cameras: Sequence[str], base: str) -> list[dict[str, object]]:
    """Keyword arguments of each node: with cameras a namespace and an image topic for each.

    Args:
        cameras: Topics; those without a slash at the start are below `base`.
        base: Namespace of the process, with a slash at its end.

    Raises:
        ConfigError: two cameras would have nodes of one name.
    """
    if not cameras:
        return [{}]
    names: dict[str, str] = {}
    for given in cameras:
        topic = given if given.startswith("/") else base + given
        namespace = base + (given.strip("/").replace("/", "_") or "camera")
        if namespace in names:
            raise ConfigError(
                f"cameras {names[namespace]} and {topic} would both be in the namespace"
                f" {namespace}: name each camera once, or start another process"
            )
        names[namespace] = topic
    return [
        {
            "namespace": namespace,
            # Rules of a node's own go before those of the process, such as a namespace for all.
            "cli_args": ["--ros-args", "-r", f"__ns:={namespace}", "-r", f"image:={topic}"],
        }
        for namespace, topic in names.items()
    ]


def _global_namespace(ros_arguments: Sequence[str]) -> str:
    """The namespace that the command line gives to all nodes, with a slash at its end."""
    rules = [one.partition(":=")[2] for one in ros_arguments if one.startswith("__ns:=")]
    return f"/{rules[-1].strip('/')}/".replace("//", "/") if rules else "/"


def _activate(node: ApeNode) -> bool:
    steps = (node.trigger_configure, node.trigger_activate)
    return all(step() == TransitionCallbackReturn.SUCCESS for step in steps)


def _spin(executor: MultiThreadedExecutor) -> None:
    """Run callbacks until the first signal, or until the context is shut down."""
    ended = threading.Event()
    on_first_signal(ended.set)
    while rclpy.ok() and not ended.is_set():
        spin_once(executor)  # returns at the latest when a node's timer is due


def _shut_down(executor: MultiThreadedExecutor, nodes: Sequence[ApeNode]) -> None:
    """Stop pipelines first: a callback may wait for one, and the executor waits for callbacks."""
    # In this order: after `executor.shutdown` no callback runs, so nodes can be taken apart.
    for node in nodes:
        node.detect.end()
        node.stop()
    executor.shutdown()
    for node in nodes:
        node.close()
        node.destroy_node()
    rclpy.try_shutdown()
