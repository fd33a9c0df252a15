"""A plain rclpy program on the other side: `camera topic [height width]` publishes noise,
`watch topic` reports what arrives.
"""

import hashlib
import json
import sys

import numpy as np
import rclpy
from sensor_msgs.msg import Image

from ape_nodes.ros2.encoder import byte_array


def camera(topic, height=48, width=64):
    node = rclpy.create_node("camera")
    pixels = np.random.default_rng(1).integers(0, 256, (int(height), int(width), 3), np.uint8)
    message = Image(height=int(height), width=int(width), encoding="bgr8", step=3 * int(width))
    message.data = byte_array(pixels.tobytes())
    message.header.frame_id = "lens"
    publisher = node.create_publisher(Image, topic, 2)

    def send():
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    node.create_timer(0.05, send)
    rclpy.spin(node)


def watch(topic):
    node = rclpy.create_node("watcher")

    def report(message):
        print(json.dumps({"md5": hashlib.md5(message.data).hexdigest()}), flush=True)  # noqa: T201

    node.create_subscription(Image, topic, report, 2)
    rclpy.spin(node)


if __name__ == "__main__":
    rclpy.init()
    {"camera": camera, "watch": watch}[sys.argv[1]](*sys.argv[2:])
