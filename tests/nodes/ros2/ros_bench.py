"""What the node's tests share: the node with a fake rclpy, and with a real one where installed.

`World` gives the modules, makes nodes and lets time pass.
"""

import importlib
import sys
import time
import types
from importlib.metadata import EntryPoint

import fake_rclpy
import numpy as np
import pytest
import ros_perceivers
from processes import claim_domain

from ape_nodes.ros2.encoder import byte_array
from ape_stream import plugins
from ape_stream.pipeline.shared_perceiver import SharedPerceiver

BACKENDS = ["fake", pytest.param("real", marks=pytest.mark.ros)]
OURS = (
    "ape_nodes.ros2.rclpy_node.node",
    "ape_nodes.ros2.rclpy_node.process",
    "ape_nodes.ros2.rclpy_node.backend",
    "ape_nodes.ros2.rclpy_node.detect",
    "ape_nodes.ros2.rclpy_node.image_input",
    "ape_nodes.ros2.rclpy_node.outputs",
    "ape_nodes.ros2.rclpy_node.receiver",
    "ape_nodes.ros2.rclpy_node.take",
)
PATIENCE_S = 60.0  # what is waited for, so that a busy machine fails no test
STAMP = (1_700_000_000, 7)


def name_plugins(patch):
    group = "ape_stream.perceivers"
    made = {"oracle": EntryPoint("oracle", "ape_stream.testing:OraclePerceiver", group)}
    for name in ros_perceivers.NAMES:
        made[name.lower()] = EntryPoint(name.lower(), f"ros_perceivers:{name}", group)
    entry = "ros_perceivers:RecordingTracker"
    tracker = {"recording": EntryPoint("recording", entry, "ape_stream.trackers")}
    added = {"perceivers": made, "trackers": tracker}
    find = plugins.find
    patch.setattr(plugins, "find", lambda g: find(g) | added.get(g, {}))


class World:
    def __init__(self, backend, patch):
        if backend == "fake":
            fake_rclpy.install(patch)
        else:
            pytest.importorskip("rclpy", reason="needs a ROS 2 installation")
            pytest.importorskip("vision_msgs", reason="needs ros-*-vision-msgs")
        for name in OURS:  # each test imports them again, with its own rclpy
            patch.setitem(sys.modules, name, types.ModuleType(name))
            del sys.modules[name]
        name_plugins(patch)
        ros_perceivers.GATE.clear()
        ros_perceivers.HOLDING.clear()
        number, self._domain = claim_domain()
        patch.setenv("ROS_DOMAIN_ID", str(number))
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        self.rclpy = importlib.import_module("rclpy")
        self.executors = importlib.import_module("rclpy.executors")
        self.qos = importlib.import_module("rclpy.qos")
        self.Parameter = importlib.import_module("rclpy.parameter").Parameter
        self.Outcome = importlib.import_module("rclpy.lifecycle").TransitionCallbackReturn
        self.ros_node = importlib.import_module("ape_nodes.ros2.rclpy_node.node")
        self.ros_rclpy = importlib.import_module("ape_nodes.ros2.rclpy_node.backend")
        self._nodes, self._executor, self.helper = [], None, None

    def message(self, name):
        return self.ros_rclpy.message_class(name)

    def start(self, *arguments, threads=1):
        self.rclpy.init(args=list(arguments))
        if threads == 1:
            self._executor = self.executors.SingleThreadedExecutor()
        else:
            self._executor = self.executors.MultiThreadedExecutor(threads)
        self.helper = self.rclpy.create_node("helper")
        self._executor.add_node(self.helper)

    def node(self, shared=None, *, name="ape", namespace=None, cli_args=None, **parameters):
        values = {"perceiver": "oracle"} | parameters
        overrides = [self.Parameter(key, value=value) for key, value in values.items()]
        node = self.ros_node.ApeNode(
            name, shared or SharedPerceiver(),
            namespace=namespace, cli_args=cli_args, parameter_overrides=overrides,
        )  # fmt: skip
        self._nodes.append(node)
        self._executor.add_node(node)
        return node

    def active(self, *arguments, **options):
        node = self.node(*arguments, **options)
        assert node.trigger_configure() == self.Outcome.SUCCESS
        assert node.trigger_activate() == self.Outcome.SUCCESS
        return node

    def until(self, condition, timeout_s=PATIENCE_S):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "the condition did not become true in time"
            self.ros_rclpy.spin_once(self._executor, 0.05)

    def pass_time(self, seconds):
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, seconds + 5)

    def listen(self, topic, spec, **qos):
        """A list that fills with the messages of an output."""
        seen = []
        profile = self.ros_rclpy.rclpy_qos(spec, **qos)
        self.helper.create_subscription(self.message(spec.type), topic, seen.append, profile)
        return seen

    def camera(self, topic="image", period_s=0.05, image=None):
        """A publisher that sends images from now on; its stamps count nanoseconds."""
        sender = self.helper.create_publisher(self.message("sensor_msgs/msg/Image"), topic, 5)
        sent = []

        def send():
            sent.append(None)
            sender.publish(image(self) if image else an_image(self, len(sent)))

        self.helper.create_timer(period_s, send)
        return sender

    def call(self, kind, name, **fields):
        """Ask a service of the nodes; a future."""
        request = self.message(kind).Request()
        for field, value in fields.items():
            setattr(request, field, value)
        client = self.helper.create_client(self.message(kind), name)
        self.until(client.service_is_ready)
        return client.call_async(request)

    def end(self):
        ros_perceivers.GATE.set()
        while self._nodes:
            node = self._nodes.pop()
            node.stop()
            node.close()
            node.destroy_node()
        # With its last node a context leaves the domain. Without this the readers of this test
        # would be there until they are collected, and the next test could get the same domain.
        if self.helper is not None:
            self.helper.destroy_node()
            self.helper = None
        if self._executor is not None:
            self._executor.shutdown()
            # Jazzy's leaves its threads running.
            if pool := getattr(self._executor, "_executor", None):
                pool.shutdown()
        self.rclpy.try_shutdown()
        self._domain.close()


def an_image(world, nanosec=7):
    pixels = np.zeros((24, 32, 3), np.uint8)
    message = world.message("sensor_msgs/msg/Image")(
        height=24, width=32, encoding="bgr8", step=96, data=byte_array(pixels.tobytes())
    )
    message.header.frame_id = "lens"
    message.header.stamp.sec, message.header.stamp.nanosec = STAMP[0], nanosec
    return message


def an_unreadable_image(world):
    kind = world.message("sensor_msgs/msg/Image")
    return kind(height=24, width=32, encoding="poem", step=32, data=byte_array(bytes(768)))
