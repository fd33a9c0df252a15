"""Several cameras, one model, one process: cameras:=/front/image_raw,/rear/image_raw."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

ARGUMENTS = {
    "cameras": (None, "Image topics, separated by commas; required."),
    "params_file": ("", "YAML file of parameters for all; empty: none."),
    "log_level": ("info", "debug, info, warn or error."),
}


def _nodes(context: LaunchContext) -> list[Node]:
    given = LaunchConfiguration("cameras").perform(context).split(",")
    cameras = [topic.strip() for topic in given if topic.strip()]
    parameters = LaunchConfiguration("params_file").perform(context)
    level = LaunchConfiguration("log_level").perform(context)
    own = ["--autostart", "--params", parameters, "--cameras", *cameras]
    return [
        Node(
            package="ape_stream",
            executable="ape_node",
            arguments=[*own, "--ros-args", "--log-level", level],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Start one process with a node per camera."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=what)
        for name, (default, what) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_nodes)])
