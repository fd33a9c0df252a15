"""The node and a window with its overlay (package rqt_image_view)."""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, ThisLaunchFileDir
from launch_ros.actions import Node

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Include ape.launch.py and show `<name>/overlay`."""
    path = PathJoinSubstitution([ThisLaunchFileDir(), "ape.launch.py"])
    arguments = {"image_topic": LaunchConfiguration("image_topic"), "name": "ape"}
    return LaunchDescription(
        [
            DeclareLaunchArgument("image_topic", default_value="image"),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(path), launch_arguments=arguments.items()
            ),
            Node(package="rqt_image_view", executable="rqt_image_view", arguments=["/ape/overlay"]),
        ]
    )
