"""For launch_test: the launched node becomes active, turns images into detections, and ends."""

import time
import unittest

import launch_testing
import launch_testing.actions
import launch_testing.asserts
import rclpy
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_testing.actions import ReadyToTest
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from launch import LaunchDescription


def generate_test_description():
    path = f"{get_package_share_directory('ape_stream')}/launch/ape.launch.py"
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path),
        launch_arguments={"image_topic": "/camera/image_raw"}.items(),
    )
    return LaunchDescription([node, ReadyToTest()])


class TestActive(unittest.TestCase):
    def test_images_in_detections_out(self):
        rclpy.init()
        node, seen = rclpy.create_node("test_active"), []
        node.create_subscription(Detection2DArray, "/ape/detections", seen.append, 10)
        camera = node.create_publisher(Image, "/camera/image_raw", 5)
        image = Image(height=48, width=64, encoding="mono8", step=64)
        image.data.frombytes(bytes(48 * 64))
        deadline = time.monotonic() + 60
        while not seen and time.monotonic() < deadline:
            camera.publish(image)
            rclpy.spin_once(node, timeout_sec=0.1)
        rclpy.shutdown()
        self.assertTrue(seen, "no detections came within a minute")


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_it_ends_well(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info, allowable_exit_codes=[0])
